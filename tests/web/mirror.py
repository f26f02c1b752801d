"""A MoEngage that serves what it was asked, so that a page shows what was sent for it, and somebody to look at it."""

import json

from starlette.testclient import TestClient
from support.moengage import MoEngage, make_client, served, serving

AGENT = "Mozilla/5.0 (iPhone)"


def reflection(body):
    asked = {name: value for name, value in body.items() if name not in ("identifiers", "experience_key")}
    return serving(
        **{key: served(asked=json.dumps(asked, sort_keys=True)) for key in body.get("experience_key", ["everything"])}
    )


def mirror(**options):
    """A MoEngage like that."""
    return MoEngage(fetch=reflection, **options)


def mirrored(moengage=None, **options):
    """A client of it."""
    return make_client(moengage or mirror(), **options)


def asked(experiences, key="home-hero"):
    """What was sent for an experience, beside its key."""
    return json.loads(experiences[key].get("asked", default="null"))


def browser(app, **headers):
    """A visitor's browser, at an application that need not be running."""

    async def at_home(scope, receive, send):
        # TestClient(client=…) came with Starlette 0.42.
        await app({**scope, "client": ("203.0.113.7", 4711)}, receive, send)

    return TestClient(at_home, headers={"User-Agent": AGENT, **headers})

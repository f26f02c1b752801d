"""A MoEngage that serves what it was asked, so that a page shows what was sent for it."""

import json

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

"""A request and a reply as values, and the error body that MoEngage documents.

The emulator's judgement is a function from `Request` to `Reply`; ASGI, HTTP/1.1 and HTTP/2 only carry the
two. A `Refusal` is how a broken rule is reported from any depth.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

Headers = tuple[tuple[bytes, bytes], ...]
JSON_HEADER = (b"content-type", b"application/json")


@attrs.frozen(kw_only=True)
class Request:
    """One HTTP request; header names are lower-case."""

    method: str
    path: str
    query: bytes = b""
    headers: Mapping[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""


@attrs.frozen
class Reply:
    """One whole HTTP answer."""

    status: int
    body: bytes
    headers: Headers = (JSON_HEADER,)


@attrs.frozen
class Streamed:
    """A 200 that is too long to be made in one turn of the loop: each chunk is made when the one before has left."""

    chunks: Iterator[bytes]
    headers: Headers = (JSON_HEADER,)


class Refusal(Exception):  # noqa: N818 - the outcome of a rule, not a fault of ours
    """A documented rule was broken: `{"title", "description", "code"?}` and a 4xx status (api-facts, 1.5)."""

    def __init__(
        self, status: int, title: str, description: str, *, code: str | None = None, headers: Headers = ()
    ) -> None:
        super().__init__(description)
        self.headers = headers
        self.status = status
        self.title = title
        self.description = description
        self.code = code

    @classmethod
    def invalid(cls, description: str) -> "Refusal":
        """A field that holds what it may not; only these carry a `code`: eight letters, opaque."""
        letters = hashlib.blake2b(description.encode(), digest_size=8).digest()
        code = "".join(chr(ord("A") + byte % 26) for byte in letters)
        return cls(400, "Invalid Field Value", description, code=code)

    @classmethod
    def malformed(cls, description: str) -> "Refusal":
        """A body that is no JSON."""
        return cls(400, "Malformed JSON", description)

    def reply(self) -> Reply:
        """The answer that says so."""
        body = {"title": self.title, "description": self.description}
        if self.code is not None:
            body["code"] = self.code
        reply = json_reply(body, self.status)
        return attrs.evolve(reply, headers=reply.headers + self.headers)


def json_reply(content: Any, status: int = 200) -> Reply:
    """An answer with a JSON body."""
    return Reply(status, json.dumps(content, separators=(",", ":")).encode())

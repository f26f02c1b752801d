"""The workspace's experiences, out and in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs

from ..._errors import BadReplyError, InvalidInputError
from ..._experiences import ExperienceMetadata, ExperiencesMetadata
from .answers import read_object

METADATA_PATH: Final = "/v1/experiences/metadata"
STATUSES: Final = ("Active", "Paused", "Scheduled")


def metadata_target(statuses: Iterable[str] | str | None) -> str:
    """Returns path and query of a metadata request.

    Raises:
        InvalidInputError: A status is none of MoEngage's; it would answer with an empty list, silently.
    """
    if statuses is None:
        return METADATA_PATH
    chosen = tuple(statuses) if isinstance(statuses, Iterable) and not isinstance(statuses, str) else (statuses,)
    if not chosen or not all(status in STATUSES for status in chosen):
        raise InvalidInputError(f"status must be one or more of {', '.join(STATUSES)}, spelled so")
    return f"{METADATA_PATH}?status={','.join(chosen)}"


@attrs.frozen
class _MetadataEntry:
    experience_name: str
    experience_key: str
    status: str


@attrs.frozen
class _Metadata:
    experiences: list[Any]
    count: int | None = None


@attrs.frozen
class _MetadataReply:
    metadata: _Metadata


def read_metadata(body: bytes) -> ExperiencesMetadata:
    """Reads the answer to a metadata request. An entry that cannot be read is left out, and counted.

    Raises:
        BadReplyError: It has not the documented shape.
    """
    import cattrs  # 40 ms; a service asks for metadata once a day

    converter = cattrs.Converter()  # of our own: the global one has whatever hooks the application gave it
    try:
        found = converter.structure(read_object(body), _MetadataReply).metadata
    except Exception as error:
        raise BadReplyError(f"the metadata cannot be read ({type(error).__name__})") from None
    entries: dict[str, ExperienceMetadata] = {}
    unreadable = 0
    for given in found.experiences:
        try:
            entry = converter.structure(given, _MetadataEntry)
        except Exception:
            unreadable += 1
        else:
            entries[entry.experience_key] = ExperienceMetadata(
                name=entry.experience_name, key=entry.experience_key, status=entry.status
            )
    count = len(found.experiences) if found.count is None else found.count
    return ExperiencesMetadata(entries=entries, count=count, unreadable=unreadable)

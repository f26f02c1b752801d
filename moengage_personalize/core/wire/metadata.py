"""The workspace's experiences, out and in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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
    experiences: list[_MetadataEntry]
    count: int | None = None


@attrs.frozen
class _MetadataReply:
    metadata: _Metadata


def read_metadata(body: bytes) -> ExperiencesMetadata:
    """Reads the answer to a metadata request.

    Raises:
        BadReplyError: It has not the documented shape.
    """
    import cattrs  # 40 ms; a service asks for metadata once a day

    try:  # a converter of our own: the global one has whatever hooks the application gave it
        found = cattrs.Converter().structure(read_object(body), _MetadataReply).metadata
    except Exception as error:
        raise BadReplyError(f"the metadata cannot be read ({type(error).__name__})") from None
    entries = {
        entry.experience_key: ExperienceMetadata(
            name=entry.experience_name, key=entry.experience_key, status=entry.status
        )
        for entry in found.experiences
    }
    return ExperiencesMetadata(entries=entries, count=len(entries) if found.count is None else found.count)

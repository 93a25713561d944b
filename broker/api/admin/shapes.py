"""What goes over the wire of the admin API: requests read strictly, answers made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker.api.body import BodyTooLarge, read_body
from broker.api.request import Unreadable
from broker.changes.edits import Edit
from broker.errors import InvalidRequest
from broker.strict_json import NotStrictJson, loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.requests import Request

    from broker.changes.edits import Finding
    from broker.model import PolicyChange, PolicyEntry
    from broker.policy.merging import Entry

MOST_BYTES: Final = 1 << 20
"""The size of one request's body."""

_DEEPEST: Final = 32
_MOST_EDITS: Final = 1_000

_M = TypeVar("_M", bound="_Model")
_Text = Annotated[str, Field(max_length=500)]
_Name = Annotated[str, Field(max_length=80)]


class _Model(BaseModel):
    # What is sent may be a secret in the wrong place: no message repeats it.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class EditShape(_Model):
    """One entry as it is to be: `body` null removes it; see `broker.changes.edits.Edit`."""

    section: _Name
    name: _Name
    body: dict[str, Any] | None
    expected: _Name | None = None


class NameShape(_Model):
    """An entry that is to be taken for granted."""

    section: _Name
    name: _Name


class ChangeShape(_Model):
    """The body of `POST /admin/v1/policy/changes`."""

    edits: Annotated[list[EditShape], Field(min_length=1, max_length=_MOST_EDITS)]
    comment: _Text | None = None


class CheckShape(_Model):
    """The body of `POST /admin/v1/policy/check`."""

    edits: Annotated[list[EditShape], Field(max_length=_MOST_EDITS)]
    assume: Annotated[list[NameShape], Field(max_length=_MOST_EDITS)] = []


class RollbackShape(_Model):
    """The body of `POST /admin/v1/policy/rollback`."""

    version: Annotated[int, Field(ge=0)]
    comment: _Text | None = None


async def read_json(request: Request, model: type[_M]) -> _M:
    """Return a request's body as `model`; raises `Unreadable`, `InvalidRequest`, `CallerGone`."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Unreadable(415, "the content type must be application/json", "content_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unreadable(415, "the body must not be compressed", "content_encoding")
    length = request.headers.get("content-length")
    try:
        data = await read_body(length.encode() if length else None, request.receive, MOST_BYTES)
        document = loads(data, max_depth=_DEEPEST)
    except BodyTooLarge:
        message = f"the body must have at most {MOST_BYTES} bytes"
        raise Unreadable(413, message, "too_large") from None
    except NotStrictJson as error:
        raise Unreadable(400, f"the body is not JSON as it must be: {error}", "json") from None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])[:200]
        raise InvalidRequest(f"{field}: {first['msg'].lower()}", field=field) from None


def edits_of(shapes: Iterable[EditShape]) -> tuple[Edit, ...]:
    """Return the edits."""
    return tuple(Edit(one.section, one.name, one.body, one.expected) for one in shapes)


def assumed_of(shapes: Iterable[NameShape]) -> Mapping[str, frozenset[str]]:
    """Return names by section."""
    listed = list(shapes)
    return {
        section: frozenset(one.name for one in listed if one.section == section)
        for section in {one.section for one in listed}
    }


def finding_data(finding: Finding) -> dict[str, Any]:
    """Return why a policy does not load, as JSON has it."""
    return {
        "message": finding.message,
        "section": finding.section,
        "name": finding.name,
        "field": finding.field,
        "place": finding.place,
    }


def entry_data(entry: PolicyEntry) -> dict[str, Any]:
    """Return an entry that the store keeps, as JSON has it."""
    return {
        "section": entry.section,
        "name": entry.name,
        "body": json.loads(entry.body),
        "origin": "api",
        "place": None,
        "etag": entry.etag,
        "version": entry.change.number,
        "changed_at": entry.change.made_at,
        "changed_by": entry.change.made_by,
        "comment": entry.change.comment,
    }


def file_entry_data(section: str, entry: Entry) -> dict[str, Any]:
    """Return an entry that a file defines, as JSON has it."""
    return {
        "section": section,
        "name": entry.name,
        "body": entry.node.plain(),
        "origin": "file",
        "place": str(entry.place),
        "etag": None,
        "version": None,
        "changed_at": None,
        "changed_by": None,
        "comment": None,
    }


def change_data(change: PolicyChange) -> dict[str, Any]:
    """Return a version of the kept policy, as JSON has it."""
    return {
        "version": change.number,
        "made_at": change.made_at,
        "made_by": change.made_by,
        "comment": change.comment,
        "digest": change.digest,
        "previous": change.previous,
        "edits": [
            {
                "section": edit.section,
                "name": edit.name,
                "body": None if edit.body is None else json.loads(edit.body),
            }
            for edit in change.edits
        ],
    }

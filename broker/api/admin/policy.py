"""`/admin/v1/policy`: read the policy, judge changes, make them, look at history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.responses import Response

from broker.api.admin.shapes import (
    ChangeShape,
    CheckShape,
    RollbackShape,
    assumed_of,
    change_data,
    edits_of,
    entry_data,
    file_entry_data,
    finding_data,
    read_json,
)
from broker.api.problems import problem
from broker.changes.edits import documents_of, edit_documents, findings
from broker.errors import InvalidRequest, PolicyError
from broker.policy.document import SECTIONS
from broker.policy.merging import merge
from broker.policy.references import is_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from broker.administrators import Administrator
    from broker.changes.edits import Edit
    from broker.changes.keeping import Changed, KeptPolicies
    from broker.changes.recorded import RecordedChanges
    from broker.policy.engine import Policy
    from broker.policy.source import Document
    from broker.storage.base import KeptPolicy, PolicyHistory

_MOST_VERSIONS: Final = 100


class PolicyPages:
    """Serve the policy to administrators.

    `in_force` returns the policy in force and the documents that it was made of.
    """

    def __init__(
        self,
        history: PolicyHistory,
        kept: KeptPolicies,
        changes: RecordedChanges,
        in_force: Callable[[], tuple[Policy, tuple[Document, ...]]],
    ) -> None:
        self._history: Final = history
        self._kept: Final = kept
        self._changes: Final = changes
        self._in_force: Final = in_force

    async def summary(self, request: Request, who: Administrator) -> Response:
        """Say which policy is in force, and which version of the kept one there is."""
        del request, who
        policy, _ = self._in_force()
        return _json(
            {
                "policy_version": policy.version,
                "version": await self._history.number(),
                "identity_sources": len(policy.identity_sources),
                "services": len(policy.services),
                "scopes": len(policy.scopes),
                "agents": len(policy.agents),
            }
        )

    async def section(self, request: Request, who: Administrator) -> Response:
        """List the entries of a section, wherever they are defined."""
        del who
        section = request.path_params["section"]
        _require_section(section)
        kept = await self._history.kept()
        return _json({"entries": await asyncio.to_thread(self._entries, kept, section)})

    async def entry(self, request: Request, who: Administrator) -> Response:
        """Return one entry; its etag stands in the header, too."""
        del who
        section, name = request.path_params["section"], request.path_params["name"]
        _require_section(section)
        entries = await asyncio.to_thread(self._entries, await self._history.kept(), section)
        found = next((one for one in entries if one["name"] == name), None)
        if found is None:
            return problem(404, "not_found", f"there is no {section}/{name[:80]}")
        etag = {"ETag": f'"{found["etag"]}"'} if found["etag"] else {}
        return _json(found, headers=etag)

    async def check(self, request: Request, who: Administrator) -> Response:
        """Say why the policy would not load with some edits; change nothing."""
        del who
        asked = await read_json(request, CheckShape)
        for one in asked.assume:
            _require_section(one.section)
        problems = await self._kept.judge(edits_of(asked.edits), assumed_of(asked.assume))
        return _json({"loads": not problems, "problems": list(map(finding_data, problems))})

    async def change(self, request: Request, who: Administrator) -> Response:
        """Make all edits, or none."""
        asked = await read_json(request, ChangeShape)
        edits = edits_of(asked.edits)
        try:
            changed = await self._changes.change(
                edits, by=who.subject, comment=asked.comment, source=_source(request)
            )
        except PolicyError as error:
            return await self._refused(error, edits)
        named = {(edit.section, edit.name) for edit in edits}
        return _json(_changed(changed, named))

    async def rollback(self, request: Request, who: Administrator) -> Response:
        """Make a new version in which all is as it was at an older one."""
        asked = await read_json(request, RollbackShape)
        try:
            changed = await self._changes.rollback(
                asked.version, by=who.subject, comment=asked.comment, source=_source(request)
            )
        except PolicyError as error:
            return await self._refused(error, (), asked.version)
        return _json(_changed(changed, set()))

    async def versions(self, request: Request, who: Administrator) -> Response:
        """List versions, the newest first: `before` a number, at most `limit` of them."""
        del who
        before = _number(request, "before")
        limit = _number(request, "limit") or _MOST_VERSIONS
        found = await self._history.versions(before, min(limit, _MOST_VERSIONS))
        return _json({"versions": list(map(change_data, found))})

    async def _refused(
        self, error: PolicyError, edits: Sequence[Edit], number: int | None = None
    ) -> Response:
        """Answer with the fields at fault in the edits and in what was kept at `number`."""
        kept = await self._history.kept(number)

        def told() -> list[dict[str, Any]]:
            documents = (*documents_of(kept), *edit_documents(edits))
            return [finding_data(one) for one in findings(error.problems, documents)]

        detail = f"the policy would not load, and nothing was changed: {error.problems[0].message}"
        members = {"problems": await asyncio.to_thread(told)}
        return problem(422, "policy_refused", detail, members=members)

    def _entries(self, kept: KeptPolicy, section: str) -> list[dict[str, Any]]:
        _, documents = self._in_force()
        files = [one for one in documents if not is_kept(one.name)]
        return [
            *(entry_data(entry) for entry in kept.entries if entry.section == section),
            *(file_entry_data(section, entry) for entry in merge(files, [])[section].values()),
        ]


def _changed(changed: Changed, named: set[tuple[str, str]]) -> dict[str, Any]:
    return {
        "changed": changed.change is not None,
        "version": changed.kept.number,
        "digest": changed.change.digest if changed.change else None,
        "policy_version": changed.policy.version,
        "entries": [
            entry_data(entry)
            for entry in changed.kept.entries
            if (entry.section, entry.name) in named
        ],
    }


def _require_section(section: str) -> None:
    if section not in SECTIONS:
        raise InvalidRequest(
            f"there is no section {section[:80]!r}; there are {', '.join(SECTIONS)}",
            field="section",
        )


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):  # noqa: PLR2004
        raise InvalidRequest(f"{name} is a whole number of at least 1", field=name)
    return int(text)


def _source(request: Request) -> str | None:
    return request.client.host if request.client else None


def _json(
    document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(orjson.dumps(document), status, headers, media_type="application/json")

"""Judge the body of a request, where a scope says `body:`.

    body:
      json:                             # or form: what the Content-Type must say it is
        charge: {glob: "ch_*"}          # there, once, and like this
        amount: {max: 5000}             # there, and a number from 0 to 5000
        currency: [eur, usd]            # there, and one of these
        description: {any: true}        # may be there
        metadata: {fields: {order: {glob: "o_*"}}}   # an object, whose members these are
        "*": {any: true}                # whatever else: without this line nothing else may be there
      max_bytes: 64KiB

It is judged whole, and the bytes that were judged are the bytes that are sent. What could be
read in two ways (a member named twice, by its letters or but for their case; another charset; a
coding) is refused.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from broker.policy.bounds import AtMost, parse_at_most
from broker.policy.conditions import Alternative, equals, parse_alternatives
from broker.policy.query import (
    METHOD_NAMES,
    MOST_STRANGE,
    OTHERS,
    TOO_STRANGE,
    Parameter,
    QueryRule,
    Wording,
    parse_parameters,
)
from broker.settings.values import size
from broker.strict_json import NotStrictJson, loads

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["json", "form"]

DEFAULT_BYTES: Final = 64 << 10
MOST_BYTES: Final = 1 << 20
"""What a scope may ask to have held in memory of a body before it is judged."""

_MEDIA_TYPES: Final[Mapping[Kind, str]] = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
}
_UTF_8: Final = re.compile(r'[ \t]*;[ \t]*charset=(?:utf-8|"utf-8")', re.IGNORECASE)
_NOT_ALPHANUMERIC: Final = re.compile(r"[^0-9a-z]+")
_FORM: Final = Wording("the body", "body field", lines=True)
_MOST_DEPTH: Final = 16
_MOST_PARTS: Final = 20_000
"""What can be judged in so short a time that nobody else has to wait for it."""

_JOINTS: Final[Mapping[Kind, tuple[bytes, ...]]] = {"json": (b",", b"{", b"["), "form": (b"&",)}


@dataclass(frozen=True, slots=True)
class Content:
    """A request's body, whole; `problem` is why its media type is not known, if it is not."""

    data: bytes
    media_type: str = ""
    problem: str | None = None


NO_BODY: Final = Content(b"")
"""That a request has no body, which is for safe methods alone."""


@dataclass(frozen=True, slots=True)
class NeedsBody:
    """That policy can tell only with the body, and how many bytes of it at most."""

    max_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """What one member of an object may be; without alternatives or members, anything."""

    alternatives: tuple[Alternative | AtMost, ...] = ()
    members: Members | None = None

    @property
    def required(self) -> bool:
        """Tell whether the member must be there."""
        return bool(self.alternatives) or (self.members is not None and self.members.required)

    def problem(self, name: str, value: Any) -> str | None:
        """Return why `value` is refused as the member `name`, or None."""
        if self.members is not None:
            return self.members.problem(value, f"{name}.")
        if not self.alternatives or any(_accepts(one, value) for one in self.alternatives):
            return None
        return f"body field {name!r} has a value that the scope does not allow"


def _accepts(one: Alternative | AtMost, value: Any) -> bool:
    return one.includes(value) if isinstance(one, AtMost) else equals(one, value)


class Members:
    """What the members of one JSON object may be."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members: Final = {name: one for name, one in members.items() if name != OTHERS}
        self._open: Final = OTHERS in members
        self._folded: Final = frozenset(_folded(name) for name in self._members)
        self.names: Final = tuple(self._members)

    @property
    def required(self) -> bool:
        """Tell whether a member must be there."""
        return any(one.required for one in self._members.values())

    def problem(self, value: Any, prefix: str = "") -> str | None:
        """Return why `value` is refused, or None; the answer never quotes it."""
        where = f"body field {prefix[:-1]!r}" if prefix else "the body"
        if not isinstance(value, dict):
            return f"{where} is not a JSON object"
        strange = 0
        for name, inner in value.items():
            member = self._members.get(name)
            if member is None:
                strange += 0 if name.isascii() else len(name)
                if strange > MOST_STRANGE:
                    return f"{where} has names {TOO_STRANGE}"
                # Some readers take Amount or a_mount for amount, and the last of the two.
                if not self._open or _folded(name) in self._folded:
                    return f"{where} may hold {self._listing()}"
            elif (problem := member.problem(f"{prefix}{name}", inner)) is not None:
                return problem
        for name, member in self._members.items():
            if member.required and name not in value:
                return f"body field {f'{prefix}{name}'!r} is missing"
        return None

    def _listing(self) -> str:
        names = ", ".join(repr(name) for name in sorted(self._members))
        return f"nothing that passes for {names}" if self._open else f"{names} alone"


def _folded(name: str) -> str:
    if name.isascii():
        return _NOT_ALPHANUMERIC.sub("", name.lower())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(one for one in folded if one.isalnum())


class BodyRule:
    """All that a scope says of the body: of which `kind` it is, and how long at most."""

    def __init__(self, rule: Members | QueryRule, max_bytes: int) -> None:
        self._rule: Final = rule
        self.kind: Final[Kind] = "json" if isinstance(rule, Members) else "form"
        self.names: Final = rule.names
        self.max_bytes: Final = max_bytes

    def problem(self, content: Content) -> str | None:
        """Return why a body is refused, or None; the answer never quotes it."""
        problem = self._form_problem(content)
        if problem is not None:
            return problem
        if sum(map(content.data.count, _JOINTS[self.kind])) > _MOST_PARTS:
            return f"the body has more than {_MOST_PARTS} parts"
        if isinstance(self._rule, QueryRule):
            return self._rule.problem(content.data)
        try:
            value = loads(content.data, max_depth=_MOST_DEPTH, exact=True)
        except NotStrictJson as error:
            return f"the body is not JSON with one reading: {error}"
        return self._rule.problem(value)

    def _form_problem(self, content: Content) -> str | None:
        if content is NO_BODY:
            return "the request has no body"
        if content.problem is not None:
            return content.problem
        expected = _MEDIA_TYPES[self.kind]
        declared, charset = content.media_type[: len(expected)], content.media_type[len(expected) :]
        if declared.lower() != expected or (charset and not _UTF_8.fullmatch(charset)):
            return f"the body's Content-Type is not {expected}"
        if len(content.data) > self.max_bytes:
            return f"the body has more than {self.max_bytes} bytes"
        return None


def parse_body(value: object) -> BodyRule:
    """Return the rule that a policy writes under `body:`.

    Raises:
        ValueError: when it is none; the text says where and what to write.
    """
    if not isinstance(value, dict) or len(value.keys() & _MEDIA_TYPES.keys()) != 1:
        raise ValueError("expected json: or form:, and what its fields may be")
    unknown = value.keys() - {*_MEDIA_TYPES, "max_bytes"}
    if unknown:
        raise ValueError(f"{min(map(str, unknown))} is not known; write json:, form:, max_bytes:")
    limit = _max_bytes(value["max_bytes"]) if "max_bytes" in value else DEFAULT_BYTES
    if "json" in value:
        return BodyRule(_members(value["json"], "json"), limit)
    return BodyRule(
        QueryRule(_parameters(value["form"]), reserved=METHOD_NAMES, wording=_FORM), limit
    )


def _parameters(value: object) -> dict[str, Parameter]:
    try:
        return parse_parameters(value)
    except ValueError as error:
        raise ValueError(f"form: {error}") from None


def _max_bytes(value: object) -> int:
    try:
        limit = size(value)
    except ValueError as error:
        raise ValueError(f"max_bytes: expected {error}") from None
    if limit > MOST_BYTES:
        raise ValueError(f"max_bytes: a body is held in memory, so {MOST_BYTES >> 10}KiB at most")
    return limit


def _members(value: object, where: str, depth: int = 1) -> Members:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{where}: expected fields and what each may be, such as {{amount: 5}}")
    if depth > _MOST_DEPTH:
        raise ValueError(f"{where}: no body is read to such a depth")
    members = {
        _member_name(name, where): _member(one, f"{where}.{name}", depth)
        for name, one in value.items()
    }
    if OTHERS in members and members[OTHERS] != Member():
        raise ValueError(f"{where}: {OTHERS!r} (all other fields) takes {{any: true}} alone")
    if len({name.casefold() for name in members}) != len(members):
        raise ValueError(f"{where}: two fields have one name but for their letters' case")
    return Members(members)


def _member_name(name: object, where: str) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: a field's name is text; put it in quotes")
    return name


def _member(value: object, where: str, depth: int) -> Member:
    if isinstance(value, dict):
        if set(value) == {"any"} and value["any"] is True:
            return Member()
        if set(value) == {"fields"}:
            return Member(members=_members(value["fields"], where, depth + 1))
    try:
        if isinstance(value, dict) and set(value) == {"max"}:
            return Member((parse_at_most(value["max"]),))
        return Member(parse_alternatives(value))
    except ValueError as error:
        hint = "; or {max: ...}, {any: true}, {fields: ...}" if isinstance(value, dict) else ""
        raise ValueError(f"{where}: {error}{hint}") from None

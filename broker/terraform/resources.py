"""The resources and data sources: one of each for every section of the policy.

`tf` asks a class for its schema, so each section has a class of its own, made from its shape.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeVar

from tf.iface import DataSource, Resource
from tf.schema import Attribute, Schema
from tf.types import Number, String, Unknown

from broker.terraform.client import ApiError
from broker.terraform.shapes import COMPUTED, SETTINGS, SHAPES
from broker.terraform.values import Dynamic, from_state_file, is_unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tf.iface import (
        CreateContext,
        DeleteContext,
        ImportContext,
        PlanContext,
        ReadContext,
        ReadDataContext,
        UpdateContext,
        UpgradeContext,
    )
    from tf.utils import Diagnostics

    from broker.terraform.client import AdminClient
    from broker.terraform.planned import Planned
    from broker.terraform.shapes import Shape

    State = dict[str, Any]

_T = TypeVar("_T")

_REFUSED: Final = "The broker refuses this policy"
_REFERENCE: Final = re.compile(r"\bunknown (?:service|scope|identity source) ")
_LATER: Final = (
    "If this configuration makes what is missing, refer to it by its resource "
    "(broker_service.NAME.name, and so on), so that Terraform makes it first."
)


class Session(Protocol):
    """What the provider gives its resources."""

    @property
    def client(self) -> AdminClient | None:
        """The client; None until the provider is configured."""
        ...

    @property
    def planned(self) -> Planned:
        """What this run has planned so far."""
        ...


class Entry(Resource):
    """An entry of the policy as a resource."""

    shape: ClassVar[Shape]

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    @classmethod
    def get_name(cls) -> str:
        """Return the type's name without the provider's (`tf.iface.Resource`)."""
        return cls.shape.kind

    @classmethod
    def get_schema(cls) -> Schema:
        """Return the attributes (`tf.iface.Resource`). Without a version: see `upgrade`."""
        return Schema(cls.shape.attributes(), description=cls.shape.description)

    def validate(self, diags: Diagnostics, type_name: str, config: State) -> None:
        """Have the API judge what is configured, together with what was planned before.

        Terraform calls this twice: before the provider is configured, when nobody can be asked,
        and while it plans, with all values that are known by then.
        """
        super().validate(diags, type_name, config)
        given = {
            attribute.name: attribute.type.decode(config.get(attribute.name))
            for attribute in self.shape.attributes()
            if attribute.name not in COMPUTED
        }
        settings = given[SETTINGS]
        if not (settings is None or is_unknown(settings) or isinstance(settings, dict)):
            told = "settings holds fields of the policy by name: write settings = { ... }"
            diags.add_error("Settings are an object", told, path=[SETTINGS])
        for name in self.shape.misplaced(settings):
            attribute = self.shape.path(name)[0]
            told = f"settings.{name} has an attribute of its own: write {attribute} = ..."
            diags.add_error("Misplaced setting", told, path=[SETTINGS])
        client, name = self._session.client, given["name"]
        if client is None or not isinstance(name, str) or diags.has_errors():
            return
        body = self.shape.body(given) if self.shape.is_known(given) else None
        self._session.planned.add(self.shape.section, name, body)
        try:
            problems = self._session.planned.problems(client)
        except ApiError as error:
            diags.add_error("The broker cannot judge this policy", str(error))
            return
        for problem in problems:
            self._tell(diags, name, problem)

    def plan(self, ctx: PlanContext, current: State | None, planned: State) -> State:
        """Say that a change gives the entry another version (`tf.iface.Resource`)."""
        del current
        later = {"etag": Unknown, "version": Unknown} if ctx.changed_fields else {}
        return {**planned, **later}

    def create(self, ctx: CreateContext, planned: State) -> State | None:
        """Set an entry that is not there yet (`tf.iface.Resource`)."""
        return self._put(ctx, planned, None)

    def update(self, ctx: UpdateContext, current: State, planned: State) -> State | None:
        """Set an entry that is still as it was when it was planned (`tf.iface.Resource`)."""
        return self._put(ctx, planned, current["etag"])

    def read(self, ctx: ReadContext, current: State) -> State | None:
        """Return the entry as it is; None if it is gone (`tf.iface.Resource`)."""
        return self._read(ctx.diagnostics, current["name"], current)

    def delete(self, ctx: DeleteContext, current: State) -> None:
        """Remove an entry that is still as it was (`tf.iface.Resource`)."""
        try:
            self._client.remove(self.shape.section, current["name"], current["etag"])
        except ApiError as error:
            self._fail(ctx.diagnostics, current["name"], error)

    def import_(self, ctx: ImportContext, id: str) -> State | None:  # noqa: A002 - `tf`'s name
        """Return the entry of this name (`tf.iface.Resource`)."""
        state = self._read(ctx.diagnostics, id, None)
        if state is None and not ctx.diagnostics.has_errors():
            told = f"there is no {self.shape.section}/{id} that the admin API keeps"
            ctx.diagnostics.add_error("Nothing to import", told)
        return state

    def upgrade(self, ctx: UpgradeContext, version: int, old: State) -> State:
        """Return a state file's values as they are on the wire (`tf.iface.Resource`).

        `tf` calls this for each state that it reads while a schema has no version.
        """
        del ctx, version
        dynamic = {
            attribute.name
            for attribute in self.shape.attributes()
            if isinstance(attribute.type, Dynamic)
        }
        return {
            name: from_state_file(value) if name in dynamic else value
            for name, value in old.items()
        }

    @property
    def _client(self) -> AdminClient:
        if self._session.client is None:
            raise ApiError("unconfigured", "the provider is not configured")
        return self._session.client

    def _put(
        self, ctx: CreateContext | UpdateContext, planned: State, expected: str | None
    ) -> State | None:
        name = planned["name"]
        try:
            entry = self._client.put(self.shape.section, name, self.shape.body(planned), expected)
        except ApiError as error:
            self._fail(ctx.diagnostics, name, error)
            return None
        return {**planned, "id": name, "etag": entry["etag"], "version": entry["version"]}

    def _read(self, diags: Diagnostics, name: str, current: State | None) -> State | None:
        try:
            entry = self._client.entry(self.shape.section, name)
        except ApiError as error:
            self._fail(diags, name, error)
            return current  # what is known stays known
        if entry is None:
            return None
        if entry["origin"] != "api":
            told = (
                f"{self.shape.section}/{name} is defined at {entry['place']}. What stands in a "
                "file is changed in that file; remove it there, or here"
            )
            diags.add_warning("Defined in a policy file", told)
            return None
        return self.shape.attributes_of(entry)

    def _tell(self, diags: Diagnostics, name: str, problem: Mapping[str, Any]) -> None:
        """Tell of a problem of this entry, of a file, or of another entry that this one breaks."""
        section, other = problem["section"], problem["name"]
        message = str(problem["message"])
        if (section, other) == (self.shape.section, name):
            hint = f"\n\n{_LATER}" if _REFERENCE.search(message) else ""
            path = self.shape.path(problem["field"]) or None
            diags.add_error(_REFUSED, message + hint, path=path)
        elif section is None:
            diags.add_error(_REFUSED, f"{problem['place']}: {message}")
        elif not self._session.planned.holds(section, other):
            told = (
                f"{message}\n\n{section}/{other} is kept by the broker and would not load beside "
                "this. If this configuration changes or removes it, that must come first."
            )
            diags.add_warning("Something else would no longer load", told)

    def _fail(self, diags: Diagnostics, name: str, error: ApiError) -> None:
        for problem in error.problems:
            own = (problem["section"], problem["name"]) == (self.shape.section, name)
            path = self.shape.path(problem["field"]) if own else []
            place = f"{problem['place']}: " if problem["place"] else ""
            diags.add_error(_REFUSED, f"{place}{problem['message']}", path=path or None)
        if error.problems:
            return
        told = str(error)
        if error.code == "exists":
            told += f". To manage it here: terraform import broker_{self.shape.kind}.NAME {name}"
        elif error.code == "changed":
            told += ". Plan again to see what has changed"
        diags.add_error(f"{self.shape.section}/{name}: {error.code}", told)


class Known(DataSource):
    """An entry of the policy, wherever it is defined, as a data source."""

    shape: ClassVar[Shape]

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    @classmethod
    def get_name(cls) -> str:
        """Return the type's name without the provider's (`tf.iface.DataSource`)."""
        return cls.shape.kind

    @classmethod
    def get_schema(cls) -> Schema:
        """Return the attributes (`tf.iface.DataSource`)."""
        return Schema(
            [
                Attribute("name", String(), "What it is called.", required=True),
                Attribute("body", Dynamic(), "What policy says of it.", computed=True),
                Attribute("origin", String(), "`api` or `file`.", computed=True),
                Attribute("place", String(), "Where a file defines it.", computed=True),
                Attribute("version", Number(), "The version that last set it.", computed=True),
                Attribute("changed_by", String(), "Who last set it.", computed=True),
            ],
            description=cls.shape.description,
        )

    def read(self, ctx: ReadDataContext, config: State) -> State | None:
        """Return the entry (`tf.iface.DataSource`)."""
        name = config["name"]
        try:
            client = _configured(self._session)
            entry = client.entry(self.shape.section, name)
        except ApiError as error:
            ctx.diagnostics.add_error(f"{self.shape.section}/{name}: {error.code}", str(error))
            return None
        if entry is None:
            ctx.diagnostics.add_error("Nothing found", f"there is no {self.shape.section}/{name}")
            return None
        told = {key: entry[key] for key in ("name", "origin", "place", "version", "changed_by")}
        return {**told, "body": Dynamic().encode(entry["body"])}


class InForce(DataSource):
    """Which policy is in force."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session

    @classmethod
    def get_name(cls) -> str:
        """Return the type's name without the provider's (`tf.iface.DataSource`)."""
        return "policy"

    @classmethod
    def get_schema(cls) -> Schema:
        """Return the attributes (`tf.iface.DataSource`)."""
        return Schema(
            [
                Attribute("policy_version", String(), "Its digest, files included.", computed=True),
                Attribute("version", Number(), "The last version of the API's.", computed=True),
            ],
            description="Which policy is in force.",
        )

    def read(self, ctx: ReadDataContext, config: State) -> State | None:
        """Return the policy's versions (`tf.iface.DataSource`)."""
        del config
        try:
            summary = _configured(self._session).summary()
        except ApiError as error:
            ctx.diagnostics.add_error(f"policy: {error.code}", str(error))
            return None
        return {key: summary[key] for key in ("policy_version", "version")}


def _configured(session: Session) -> AdminClient:
    if session.client is None:
        raise ApiError("unconfigured", "the provider is not configured")
    return session.client


def _of(shape: Shape, base: type[_T]) -> type[_T]:
    name = "".join(map(str.capitalize, shape.kind.split("_"))) + base.__name__
    made: type[_T] = type(name, (base,), {"shape": shape})
    return made


RESOURCES: Final[list[type[Entry]]] = [_of(shape, Entry) for shape in SHAPES]
DATA_SOURCES: Final[list[type[Known | InForce]]] = [
    InForce,
    *(_of(shape, Known) for shape in SHAPES),
]

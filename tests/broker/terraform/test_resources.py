from __future__ import annotations

from typing import Any

import pytest
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
from tf.types import Unknown
from tf.utils import Diagnostics

from broker.terraform.planned import Planned
from broker.terraform.resources import DATA_SOURCES, RESOURCES, Entry, InForce, Known, Session
from broker.terraform.values import Dynamic
from tests.broker.terraform.conftest import BOT, READ, STRIPE, Site

BY_KIND = {one.get_name(): one for one in RESOURCES}
KNOWN = {one.get_name(): one for one in DATA_SOURCES}
SETTINGS = {key: value for key, value in STRIPE.items() if key != "provider"}
SERVICE = {"name": "stripe", "provider_kind": "http_api", "settings": SETTINGS}
SCOPE = {"name": "stripe.read", **READ}
AGENT = {"name": "bot", **BOT}


def told(diags: Diagnostics) -> list[tuple[str, str, Any]]:
    return [(one.severity, one.summary, one.path) for one in diags.diagnostics]


def details(diags: Diagnostics) -> str:
    return " ".join(str(one.detail) for one in diags.diagnostics)


def resource(site: Session, kind: str) -> Entry:
    made: Entry = BY_KIND[kind](site)
    return made


def whole(kind: str, **given: Any) -> dict[str, Any]:
    """A planned state: what is not given is null, what is computed is unknown."""
    return {
        attribute.name: Unknown if attribute.computed else given.get(attribute.name)
        for attribute in BY_KIND[kind].get_schema().attributes
    }


def create(site: Session, kind: str, **given: Any) -> tuple[dict[str, Any] | None, Diagnostics]:
    diags = Diagnostics()
    state = resource(site, kind).create(CreateContext(diags, kind), whole(kind, **given))
    return state, diags


def config(kind: str, **given: Any) -> dict[str, Any]:
    """A configuration as it comes from the wire."""
    encoded = {}
    for attribute in BY_KIND[kind].get_schema().attributes:
        value = given.get(attribute.name)
        encoded[attribute.name] = (
            attribute.type.encode(value) if isinstance(attribute.type, Dynamic) else value
        )
    return encoded


def validate(site: Session, kind: str, **given: Any) -> Diagnostics:
    diags = Diagnostics()
    BY_KIND[kind](site).validate(diags, f"broker_{kind}", config(kind, **given))
    return diags


def test_names_are_those_of_the_policy() -> None:
    assert set(BY_KIND) == {"identity_source", "service", "scope", "agent"}
    assert set(KNOWN) == {*BY_KIND, "policy"}


def test_an_entry_lives_and_dies(site: Site) -> None:
    state, diags = create(site, "service", **SERVICE)
    assert told(diags) == []
    assert state is not None
    assert (state["id"], state["version"]) == ("stripe", 1)
    service = resource(site, "service")
    assert service.read(ReadContext(diags, "service"), state) == state
    planned = {**state, "description": "x", "etag": Unknown, "version": Unknown}
    updated = service.update(UpdateContext(diags, "service"), state, planned)
    assert updated is not None
    assert (updated["version"], updated["description"]) == (2, "x")
    service.delete(DeleteContext(diags, "service"), updated)
    assert told(diags) == []
    assert service.read(ReadContext(diags, "service"), updated) is None


def test_a_state_that_is_not_the_last_is_neither_changed_nor_removed(site: Site) -> None:
    state, _ = create(site, "service", **SERVICE)
    assert state is not None
    stale = {**state, "etag": "0-0"}
    service, changed, removed = resource(site, "service"), Diagnostics(), Diagnostics()
    other = {**state, "description": "x"}
    assert service.update(UpdateContext(changed, "service"), stale, other) is None
    service.delete(DeleteContext(removed, "service"), stale)
    for diags in (changed, removed):
        assert told(diags) == [("error", "services/stripe: changed", None)]
        assert "Plan again" in details(diags)
    assert site.names("services") == ["stripe"]


def test_what_is_there_already_is_to_be_imported(site: Site) -> None:
    create(site, "service", **SERVICE)
    state, diags = create(site, "service", **SERVICE)
    assert state is None
    assert "terraform import broker_service.NAME stripe" in details(diags)
    imported = resource(site, "service").import_(ImportContext(diags, "service"), "stripe")
    assert imported is not None
    assert imported["settings"] == SETTINGS
    assert imported["provider_kind"] == "http_api"


@pytest.mark.parametrize(("name", "why"), [("gone", "there is no"), ("orders", "own.yaml:2:3")])
def test_only_what_the_api_keeps_is_imported(site: Site, name: str, why: str) -> None:
    ctx = ImportContext(Diagnostics(), "service")
    assert resource(site, "service").import_(ctx, name) is None
    assert ctx.diagnostics.has_errors()
    assert why in details(ctx.diagnostics)


def test_a_refusal_names_the_attribute(site: Site) -> None:
    create(site, "service", **SERVICE)
    state, diags = create(site, "scope", **{**SCOPE, "allow": ["GET /ok", "GOT /"]})
    assert state is None
    assert told(diags) == [("error", "The broker refuses this policy", ["allow", (1,)])]
    bad = {**SETTINGS, "credential": {"type": "bearer", "secret": "plain"}}
    _, diags = create(site, "service", **{**SERVICE, "name": "b", "settings": bad})
    assert told(diags)[0][2] == ["settings", "credential", "secret"]
    assert "plain" not in details(diags)


def test_removing_what_others_need_is_refused_in_their_name(site: Site) -> None:
    state, _ = create(site, "service", **SERVICE)
    create(site, "scope", **SCOPE)
    assert state is not None
    diags = Diagnostics()
    resource(site, "service").delete(DeleteContext(diags, "service"), state)
    assert told(diags) == [("error", "The broker refuses this policy", None)]
    assert "scope 'stripe.read': unknown service 'stripe'" in details(diags)


def test_a_plan_is_judged_with_what_was_planned_before(site: Site) -> None:
    alone = validate(site, "scope", **SCOPE)
    assert told(alone) == [("error", "The broker refuses this policy", ["service"])]
    assert "refer to it by its resource" in details(alone)
    assert told(validate(site, "service", **SERVICE)) == []
    assert told(validate(site, "scope", **SCOPE)) == []
    assert told(validate(site, "agent", **AGENT)) == []
    assert site.names("services") == []


def test_what_is_not_known_yet_is_taken_for_granted(site: Site) -> None:
    later = {**SERVICE, "settings": {**SETTINGS, "base_url": Unknown}}
    assert told(validate(site, "service", **later)) == []
    assert told(validate(site, "scope", **SCOPE)) == []
    assert told(validate(site, "scope", **{**SCOPE, "name": Unknown})) == []
    wrong = validate(site, "scope", **{**SCOPE, "allow": ["GOT /"]})
    assert told(wrong)[0][2] == ["allow", (0,)]


def test_what_others_keep_and_would_break_is_a_warning(site: Site) -> None:
    site.fill()
    dynamic = {"name": "stripe", "provider_kind": "vault_dynamic", "settings": {"mount": "db"}}
    diags = validate(site, "service", **dynamic)
    assert {severity for severity, _, _ in told(diags)} == {"warning"}
    assert "scopes/stripe.read is kept by the broker" in details(diags)
    assert told(validate(site, "scope", name="stripe.read", service="stripe"))[0][0] == "error"


def test_a_policy_file_that_is_wrong_is_told_by_its_place(site: Site) -> None:
    (site.bench.settings.policies / "bad.yaml").write_text("agents: {x: {}}\n")
    diags = validate(site, "service", **SERVICE)
    assert diags.has_errors()
    assert "bad.yaml:1:" in details(diags)


class Offline:
    """A provider that has not been configured."""

    client = None
    planned = Planned()


def test_without_a_broker_only_the_form_is_looked_at() -> None:
    assert told(validate(Offline(), "scope", name="x", service="nothing")) == []
    diags = validate(Offline(), "service", **{**SERVICE, "settings": {"provider": "x"}})
    assert told(diags) == [("error", "Misplaced setting", ["settings"])]
    assert "write provider_kind" in details(diags)
    for odd in ("base_url", ["base_url"], 1, False):
        diags = validate(Offline(), "scope", name="x", service="nothing", settings=odd)
        assert told(diags) == [("error", "Settings are an object", ["settings"])]
    for later in (None, Unknown):
        diags = validate(Offline(), "scope", name="x", service="nothing", settings=later)
        assert told(diags) == []
    state, diags = create(Offline(), "service", **SERVICE)
    assert state is None
    assert "not configured" in details(diags)


def test_an_api_that_cannot_be_reached_loses_nothing(site: Site) -> None:
    state, diags = create(site, "service", **SERVICE)
    assert state is not None
    site.do(site.bench.storage.close())
    service = resource(site, "service")
    assert service.read(ReadContext(diags, "service"), state) == state
    assert diags.has_errors()
    assert told(validate(site, "service", **SERVICE))[0][1] == "The broker cannot judge this policy"


def test_a_change_has_another_version_and_nothing_else_has() -> None:
    scope = BY_KIND["scope"](Offline())
    state = {"name": "a", "etag": "1-a", "version": 1}
    for changed, expected in ((set(), ("1-a", 1)), ({"allow"}, (Unknown, Unknown))):
        planned = scope.plan(PlanContext(Diagnostics(), "scope", changed), state, dict(state))
        assert (planned["etag"], planned["version"]) == expected


def test_a_state_file_is_read() -> None:
    stored = {
        "name": "a",
        "settings": {"type": ["object", {"x": "number"}], "value": {"x": 1}},
        "query": None,
    }
    ctx = UpgradeContext(Diagnostics(), "scope")
    state = BY_KIND["scope"](Offline()).upgrade(ctx, 0, stored)
    assert state == {
        "name": "a",
        "settings": [b'["object", {"x": "number"}]', {"x": 1}],
        "query": None,
    }


def test_data_sources_tell_of_entries_and_of_the_policy(site: Site) -> None:
    site.fill()
    ctx = ReadDataContext(Diagnostics(), "x")
    service = KNOWN["service"](site)
    assert isinstance(service, Known)
    state = service.read(ctx, {"name": "stripe"})
    assert state is not None
    assert state["body"][1] == STRIPE
    assert (state["origin"], state["version"]) == ("api", 1)
    defined = service.read(ctx, {"name": "orders"})
    assert defined is not None
    assert str(defined["place"]).endswith("own.yaml:2:3")
    policy = InForce(site).read(ctx, {})
    assert policy == {
        "policy_version": site.bench.policies.current.version,
        "version": 1,
    }
    assert not ctx.diagnostics.has_errors()
    assert service.read(ctx, {"name": "gone"}) is None
    assert "there is no services/gone" in details(ctx.diagnostics)


def test_data_sources_need_a_configured_provider() -> None:
    ctx = ReadDataContext(Diagnostics(), "x")
    assert KNOWN["service"](Offline()).read(ctx, {"name": "x"}) is None
    assert InForce(Offline()).read(ctx, {}) is None
    assert len(ctx.diagnostics.diagnostics) == 2


def test_every_schema_can_be_sent() -> None:
    for one in (*RESOURCES, *DATA_SOURCES):
        assert one.get_schema().to_pb().block.attributes

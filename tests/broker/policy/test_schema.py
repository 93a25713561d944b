from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from broker.policy.document import SECTIONS
from broker.policy.plugins import InstalledPlugins
from broker.policy.schema import policy_schema, rendered
from broker.resources import data_path
from tests.fakes.policies import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = policy_schema(PLUGINS)


def everything(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            yield from everything(inner)


def entry(section: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["properties"][section]["additionalProperties"]
    return found


def test_the_kept_schema_is_the_models() -> None:
    kept = data_path("schema.json").read_text()
    assert kept == rendered(InstalledPlugins()), (
        "run: python -m broker.policy.schema > policies/schema.json"
    )


def test_is_printed_by_the_module() -> None:
    printed = subprocess.run(
        [sys.executable, "-W", "error", "-m", "broker.policy.schema"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert printed.stdout == rendered(InstalledPlugins())
    assert json.loads(printed.stdout)["$schema"].endswith("2020-12/schema")


def test_every_field_is_documented() -> None:
    root = Path(__file__).parents[3]
    pages = [root / "docs" / "policy.md", *(root / "docs" / "providers").glob("*.md")]
    written = " ".join(page.read_text() for page in pages)
    kept = json.loads(data_path("schema.json").read_text())
    fields = {name for one in everything(kept) for name in _properties(one)}
    assert len(fields) > 100
    missing = {one for one in fields if not re.search(rf"(?<!\w){re.escape(one)}(?!\w)", written)}
    assert missing == set()


def _properties(schema: dict[str, Any]) -> set[str]:
    found = schema.get("properties")
    return set(found) if isinstance(found, dict) else set()


def test_names_the_sections_and_no_others() -> None:
    assert set(SCHEMA["properties"]) == set(SECTIONS)
    assert SCHEMA["additionalProperties"] is False


def test_each_provider_has_its_own_kind_of_service() -> None:
    services = {one["properties"]["provider"]["const"]: one for one in entry("services")["oneOf"]}
    assert set(services) == {"cloud", "forge", "http_api"}
    assert {"base_url", "credential", "description"} <= set(services["http_api"]["properties"])
    assert services["cloud"]["required"] == ["provider", "region", "key"]


def test_a_scope_is_offered_the_fields_of_every_provider() -> None:
    fields = entry("scopes")["properties"]
    assert {"service", "allow", "deny", "query", "reason", "risk", "delivery"} <= set(fields)
    assert {"repositories", "tags"} <= set(fields)
    assert entry("scopes")["required"] == ["service"]


@pytest.mark.parametrize("rule", ["GET /v1/**", "* /**", "M-SEARCH /a", "POST /a/*:run"])
def test_its_patterns_take_what_is_right(rule: str) -> None:
    assert re.search(entry("scopes")["properties"]["allow"]["items"]["pattern"], rule)


@pytest.mark.parametrize("rule", ["get /v1", "GET v1", "/v1", "GET  /v1"])
def test_its_patterns_refuse_what_is_wrong(rule: str) -> None:
    assert not re.search(entry("scopes")["properties"]["allow"]["items"]["pattern"], rule)


def test_every_object_refuses_unknown_fields() -> None:
    for one in everything(SCHEMA):
        if one.get("type") == "object":
            assert "additionalProperties" in one


def test_every_reference_leads_somewhere_and_nothing_is_null() -> None:
    for one in everything(SCHEMA):
        if isinstance(one.get("$ref"), str):
            assert one["$ref"].removeprefix("#/$defs/") in SCHEMA["$defs"]
        assert one.get("type") != "null"

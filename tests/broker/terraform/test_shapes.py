from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tf.checker import check_attributes
from tf.types import Unknown
from tf.utils import Diagnostics

from broker.policy.document import SECTIONS, AgentFields, ScopeFields, ServiceFields
from broker.terraform.shapes import SHAPES, Shape

BY_SECTION = {shape.section: shape for shape in SHAPES}
SCOPE = BY_SECTION["scopes"]
# Terraform keeps these words for itself in every resource.
RESERVED = {"provider", "count", "for_each", "depends_on", "lifecycle", "connection"}


def test_every_section_of_the_policy_has_a_shape() -> None:
    assert set(BY_SECTION) == set(SECTIONS)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.kind)
def test_schemas_are_what_terraform_takes(shape: Shape) -> None:
    diags = Diagnostics()
    check_attributes(diags, shape.attributes())
    assert not diags.has_errors(), str(diags)
    names = [attribute.name for attribute in shape.attributes()]
    assert len(names) == len(set(names))
    assert not RESERVED & set(names)


@pytest.mark.parametrize(
    ("section", "model"),
    [("scopes", ScopeFields), ("agents", AgentFields), ("services", ServiceFields)],
)
def test_typed_fields_are_fields_of_policy(section: str, model: Any) -> None:
    fields = {field.name: field for field in BY_SECTION[section].fields}
    assert fields.keys() <= model.model_fields.keys()
    required = {name for name, one in model.model_fields.items() if one.is_required()}
    assert required <= {name for name, field in fields.items() if field.required}


@given(
    st.dictionaries(
        st.sampled_from(["service", "allow", "max_ttl", "repositories", "permissions", "channel"]),
        st.sampled_from(["a", "15m", "x"]),
    )
)
def test_a_body_becomes_attributes_and_a_body_again(body: dict[str, Any]) -> None:
    entry = {"name": "a", "body": body, "etag": "1-a", "version": 1}
    attributes = SCOPE.attributes_of(entry)
    assert set(attributes) == {attribute.name for attribute in SCOPE.attributes()}
    assert SCOPE.body(attributes) == body


def test_a_lifetime_in_seconds_is_text_here() -> None:
    entry = {"name": "a", "body": {"max_ttl": 900}, "etag": "e", "version": 1}
    assert SCOPE.attributes_of(entry)["max_ttl"] == "900"


def test_nothing_is_said_of_what_is_null() -> None:
    state = {"service": "s", "allow": None, "settings": {"a": None, "b": {"c": None, "d": 1}}}
    assert SCOPE.body(state) == {"service": "s", "b": {"d": 1}}
    assert SCOPE.body({"service": "s", "settings": None}) == {"service": "s"}


def test_what_is_not_known_is_noticed_anywhere() -> None:
    assert SCOPE.is_known({"service": "s", "settings": {"a": [1]}})
    assert not SCOPE.is_known({"service": "s", "allow": ["x", Unknown]})
    assert not SCOPE.is_known({"service": "s", "settings": {"a": [{"b": Unknown}]}})


def test_settings_that_have_attributes_are_named() -> None:
    assert SCOPE.misplaced({"service": 1, "allow": 2, "x": 3}) == ["service", "allow"]
    assert SCOPE.misplaced(None) == []
    assert SCOPE.misplaced(Unknown) == []


@pytest.mark.parametrize(
    ("section", "field", "path"),
    [
        ("scopes", "allow[1]", ["allow", (1,)]),
        ("scopes", "repositories[0]", ["settings", "repositories", (0,)]),
        ("services", "provider", ["provider_kind"]),
        ("services", "credential.secret", ["settings", "credential", "secret"]),
        ("agents", "trust[0].claims.ref", ["trust", (0,), "claims", "ref"]),
        ("agents", "", []),
    ],
)
def test_a_field_is_an_attribute_path(section: str, field: str, path: list[Any]) -> None:
    assert BY_SECTION[section].path(field) == path

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from providers.base import TokenSlot, Upstream
from providers.vault_dynamic.fields import (
    VaultDynamicScope,
    VaultDynamicService,
    token_slots,
    upstream,
)

BEARER = {"type": "bearer"}
PLACE = {"base_url": "https://cluster.example:6443", "credential": BEARER}


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (VaultDynamicService, {"mount": "../sys"}),
        (VaultDynamicService, {"mount": "/database"}),
        (VaultDynamicService, {"mount": "a b"}),
        (VaultDynamicService, {"mount": "database", "token_policies": ()}),
        (VaultDynamicService, {"mount": "database", "token_policies": ("root",)}),
        (VaultDynamicService, {"mount": "database", "token_role": "a/b"}),
        (VaultDynamicService, {"mount": "database", "extra": 1}),
        (VaultDynamicService, {"mount": "a", "base_url": "https://a.example"}),
        (VaultDynamicService, {"mount": "a", "credential": BEARER}),
        (VaultDynamicService, {"mount": "a", **PLACE, "base_url": "http://a.example"}),
        (VaultDynamicService, {"mount": "a", **PLACE, "base_url": "https://a.example/../b"}),
        (VaultDynamicService, {"mount": "a", **PLACE, "credential": {"type": "query"}}),
        (
            VaultDynamicService,
            {"mount": "a", **PLACE, "credential": {"type": "header", "name": "X Y"}},
        ),
        (
            VaultDynamicService,
            {"mount": "a", **PLACE, "credential": {"type": "header", "name": "X", "prefix": "\n"}},
        ),
        (VaultDynamicScope, {"path": "creds/../../sys/seal"}),
        (VaultDynamicScope, {"path": "creds/x?list=true"}),
        (VaultDynamicScope, {"path": ""}),
        (VaultDynamicScope, {"path": "a", "method": "DELETE"}),
        (VaultDynamicScope, {"path": "a", "method": "GET", "parameters": {"x": "y"}}),
        (VaultDynamicScope, {"path": "a", "parameters": {"ttl": "1h"}, "ttl_parameter": "ttl"}),
        (VaultDynamicScope, {"path": "a", "unleased": True}),
        (VaultDynamicScope, {"path": "a", "unleased": "yes", "ttl_parameter": "ttl"}),
    ],
)
def test_t5_what_a_policy_cannot_say(model: type[Any], fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**fields)


def test_the_request_that_asks_an_engine() -> None:
    plain = VaultDynamicScope(path="creds/x")
    assert plain.request(60) == ("GET", None)
    full = VaultDynamicScope(
        path="creds/x", parameters={"namespace": "ci", "n": 3}, ttl_parameter="ttl"
    )
    assert full.request(60) == ("POST", {"namespace": "ci", "n": 3, "ttl": "60s"})


def test_where_requests_go_and_where_the_task_token_may_stand() -> None:
    engine = VaultDynamicService(mount="database")
    assert (upstream(engine), token_slots(engine)) == (None, ())
    given = VaultDynamicService.model_validate(
        {"mount": "kubernetes", **PLACE, "allow_private": True, "ca_file": "/ca.pem"}
    )
    assert upstream(given) == Upstream(
        "https", "cluster.example", 6443, allow_private=True, ca_file="/ca.pem"
    )
    bearer = TokenSlot("bearer", b"authorization", b"Bearer ")
    assert token_slots(given) == (bearer,)
    slots = {
        "basic": TokenSlot("basic", b"authorization"),
        "header": TokenSlot("header", b"x-consul-token"),
    }
    for kind, slot in slots.items():
        name = {"name": "X-Consul-Token"} if kind == "header" else {}
        shown = VaultDynamicService.model_validate(
            {"mount": "m", **PLACE, "credential": {"type": kind, **name}}
        )
        assert token_slots(shown) == (bearer, slot)

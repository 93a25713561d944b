from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from providers.gcp import PLUGIN
from providers.gcp.config import GcpScope, GcpService

KEY = {"type": "service_account_key", "key": "vault:kv/gcp#json"}
POOLS = "//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools"
POOL = f"{POOLS}/agents/providers/cluster"
GOOD: dict[str, Any] = {
    "base_url": "https://storage.googleapis.com",
    "service_account": "artifacts@acme-prod.iam.gserviceaccount.com",
    "credentials": KEY,
}
STORAGE = ["https://www.googleapis.com/auth/devstorage.read_only"]
RULE = {
    "resource": "//storage.googleapis.com/projects/_/buckets/artifacts",
    "permissions": ["inRole:roles/storage.objectViewer"],
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"service_account": "artifacts"}, "should match pattern"),
        ({"service_account": "a/../b@acme.iam.gserviceaccount.com"}, "should match pattern"),
        ({"service_account": "evil@example.com"}, "should match pattern"),
        ({"iam_url": "http://iam.example.com"}, "iam_url is plain http"),
        ({"credentials": KEY | {"key": "hunter2"}}, "expected a secret reference"),
        ({"credentials": {"type": "metadata"}}, "does not match any"),
        (
            {"credentials": {"type": "federated", "audience": "x", "token_file": "/t"}},
            "should match pattern",
        ),
        ({"project": "x"}, "Extra inputs"),
    ],
    ids=repr,
)
def test_what_cannot_work_or_is_unsafe_does_not_load(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        GcpService.model_validate(GOOD | changes)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "Field required"),
        ({"oauth_scopes": STORAGE}, "give access_boundary"),
        ({"oauth_scopes": STORAGE, "access_boundary": []}, "at least 1 item"),
        ({"oauth_scopes": [], "full_service_account": True}, "at least 1 item"),
        ({"oauth_scopes": ["cloud-platform"], "full_service_account": True}, "should match"),
        (
            {"oauth_scopes": STORAGE, "access_boundary": [RULE], "full_service_account": True},
            "give access_boundary",
        ),
        ({"oauth_scopes": STORAGE, "access_boundary": [RULE | {"permissions": []}]}, "at least 1"),
        (
            {"oauth_scopes": STORAGE, "access_boundary": [RULE | {"permissions": ["*"]}]},
            "should match pattern",
        ),
        (
            {"oauth_scopes": STORAGE, "access_boundary": [RULE | {"resource": "*"}]},
            "should match pattern",
        ),
    ],
    ids=repr,
)
def test_a_scope_narrows_or_says_that_it_does_not(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        GcpScope.model_validate(fields)


def test_every_secret_is_known() -> None:
    assert PLUGIN.secret_references(GcpService.model_validate(GOOD)) == ("vault:kv/gcp#json",)
    federated = {"type": "federated", "audience": POOL, "token_file": "/token"}
    without = GcpService.model_validate(GOOD | {"credentials": federated})
    assert PLUGIN.secret_references(without) == ()

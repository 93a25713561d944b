from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import ProviderError, Secret
from providers.gcp import PLUGIN
from providers.gcp.config import BoundaryRule, GcpScope, GcpService
from tests.fakes.endpoint import token
from tests.fakes.keys import strangers_key
from tests.fakes.provider_bench import NOW, dependencies, request
from tests.providers.gcp.test_config import GOOD, POOL, RULE, STORAGE

if TYPE_CHECKING:
    from pathlib import Path

    from providers.gcp.provider import Gcp
    from tests.fakes.endpoint import Endpoint, Sent

WHOLE = GcpScope(oauth_scopes=tuple(STORAGE), full_service_account=True)
CUT = GcpScope(oauth_scopes=tuple(STORAGE), access_boundary=(BoundaryRule(**RULE),))
ACCOUNT = "artifacts@acme-prod.iam.gserviceaccount.com"
KEY = strangers_key("RS256")
FILE = json.dumps(
    {
        "type": "service_account",
        "client_email": "broker@acme-prod.iam.gserviceaccount.com",
        "private_key_id": "key-7",
        "private_key": KEY.private_pem().decode(),
    }
).encode()


def impersonated(value: str = "impersonated", seconds: int = 300) -> dict[str, Any]:
    end = datetime.fromtimestamp(NOW + seconds, UTC).isoformat().replace("+00:00", "Z")
    return {"accessToken": value, "expireTime": end}


def provider(endpoint: Endpoint, key: bytes = FILE, **fields: Any) -> Gcp:
    config = GcpService.model_validate(
        {
            **GOOD,
            "iam_url": endpoint.url,
            "sts_url": endpoint.url,
            "token_url": f"{endpoint.url}/token",
            "allow_private": True,
            "ca_file": str(endpoint.ca_file),
            **fields,
        }
    )
    built: Gcp = PLUGIN.build(config, dependencies({"vault:kv/gcp#json": key}))  # type: ignore[assignment]
    return built


def of(endpoint: Endpoint, end: str) -> list[Sent]:
    return [sent for sent in endpoint.sent if sent.path.endswith(end)]


async def test_a_token_is_made_for_the_grant_and_ends_with_it(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own", expires_in=3599))
    endpoint.say(200, impersonated())
    minted = await provider(endpoint).mint(request(WHOLE, lifetime=300))
    assert minted.fields == {"access_token": Secret(b"impersonated")}
    assert minted.expires_at == NOW + 300
    shown, made = endpoint.sent
    claims = jwt.decode(
        shown.form["assertion"],
        KEY.private.public_key(),
        algorithms=["RS256"],
        audience=f"{endpoint.url}/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["iss"] == "broker@acme-prod.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert jwt.get_unverified_header(shown.form["assertion"])["kid"] == "key-7"
    assert made.path == f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
    assert made.headers["authorization"] == "Bearer own"
    assert made.document == {"scope": STORAGE, "lifetime": "300s"}


async def test_it_is_cut_to_the_scopes_boundary(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated())
    endpoint.say(200, token("cut", expires_in=250))
    minted = await provider(endpoint).mint(request(CUT))
    assert minted.fields == {"access_token": Secret(b"cut")}
    assert minted.expires_at == NOW + 250
    form = endpoint.sent[2].form
    assert endpoint.sent[2].path == "/v1/token"
    assert form.pop("subject_token") == "impersonated"
    assert json.loads(form.pop("options")) == {
        "accessBoundary": {
            "accessBoundaryRules": [
                {
                    "availableResource": RULE["resource"],
                    "availablePermissions": RULE["permissions"],
                }
            ]
        }
    }
    access = "urn:ietf:params:oauth:token-type:access_token"
    assert form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": access,
        "subject_token_type": access,
    }


async def test_a_cut_token_that_says_no_end_has_that_of_the_whole_one(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated(seconds=120))
    endpoint.say(200, {"access_token": "cut", "token_type": "Bearer"})
    assert (await provider(endpoint).mint(request(CUT))).expires_at == NOW + 120


async def test_a_token_that_was_not_cut_is_not_used(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated())
    endpoint.say(200, token("impersonated"))
    with pytest.raises(ProviderError, match="as it was") as caught:
        await provider(endpoint).mint(request(CUT))
    assert not caught.value.untouched


async def test_a_workload_identity_takes_the_place_of_a_key(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("header.payload.signature")
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated())
    credentials = {
        "type": "federated",
        "audience": POOL,
        "token_file": str(tmp_path / "token"),
    }
    await provider(endpoint, credentials=credentials).mint(request(WHOLE))
    form = endpoint.sent[0].form
    assert (form["audience"], form["subject_token"]) == (POOL, "header.payload.signature")
    assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:jwt"


async def test_the_brokers_own_token_is_used_again(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated())
    one = provider(endpoint)
    for _ in range(3):
        await one.mint(request(WHOLE))
    assert len(of(endpoint, "/token")) == 1
    assert len(of(endpoint, ":generateAccessToken")) == 3


@pytest.mark.parametrize("status", [403, 404])
async def test_what_is_lacking_is_said_and_the_own_token_got_anew(
    endpoint: Endpoint, status: int
) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(status, {"error": {"message": "SECRET"}})
    endpoint.say(200, token("own-again"))
    endpoint.say(200, impersonated())
    one = provider(endpoint)
    with pytest.raises(ProviderError, match=r"serviceAccountTokenCreator") as caught:
        await one.mint(request(WHOLE))
    assert "SECRET" not in str(caught.value)
    await one.mint(request(WHOLE))
    assert endpoint.sent[3].headers["authorization"] == "Bearer own-again"


async def test_an_outage_may_have_made_a_token(endpoint: Endpoint) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(503, b"SECRET")
    with pytest.raises(ProviderError, match="503") as caught:
        await provider(endpoint).mint(request(WHOLE))
    assert caught.value.retryable
    assert not caught.value.untouched


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"accessToken": "a b", "expireTime": "2030-01-01T00:00:00Z"},
        {"accessToken": "a", "expireTime": "2030-01-01T00:00:00"},
        {"accessToken": "a", "expireTime": "soon"},
        {"accessToken": ["a"], "expireTime": "2030-01-01T00:00:00Z"},
    ],
    ids=repr,
)
async def test_an_answer_without_a_token_is_none(endpoint: Endpoint, answer: Any) -> None:
    endpoint.say(200, token("own"))
    endpoint.say(200, answer)
    with pytest.raises(ProviderError, match="without a token and its end"):
        await provider(endpoint).mint(request(WHOLE))


@pytest.mark.parametrize(
    "key", [b"", b"hunter2", b"[]", b"{}", b'{"client_email":"hunter2"}', b"[" * 100_000]
)
async def test_a_key_that_is_none_is_told_by_its_reference(endpoint: Endpoint, key: bytes) -> None:
    with pytest.raises(
        ProviderError, match="vault:kv/gcp#json is no service account key"
    ) as caught:
        await provider(endpoint, key).mint(request(WHOLE))
    assert "hunter2" not in str(caught.value)
    assert endpoint.sent == []


RULES = st.builds(
    BoundaryRule,
    resource=st.from_regex(r"//storage\.googleapis\.com/[a-z_/]{1,20}", fullmatch=True),
    permissions=st.lists(
        st.from_regex(r"inRole:roles/storage\.[a-z]{1,10}", fullmatch=True), min_size=1, max_size=3
    ).map(tuple),
    condition=st.none() | st.from_regex(r"[ -~]{1,30}", fullmatch=True),
)


@given(rules=st.lists(RULES, min_size=1, max_size=4), lifetime=st.integers(1, 100_000))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_never_wider_than_the_scope(
    endpoint: Endpoint, rules: list[BoundaryRule], lifetime: int
) -> None:
    endpoint.answers.clear()
    endpoint.sent.clear()
    endpoint.say(200, token("own"))
    endpoint.say(200, impersonated())
    endpoint.say(200, token("cut"))
    scope = GcpScope(oauth_scopes=tuple(STORAGE), access_boundary=tuple(rules))
    minted = await provider(endpoint).mint(request(scope, lifetime=lifetime))
    assert minted.fields == {"access_token": Secret(b"cut")}
    _, made, cut = endpoint.sent
    assert made.document["scope"] == STORAGE
    assert int(made.document["lifetime"].removesuffix("s")) <= min(lifetime, 3600)
    sent = json.loads(cut.form["options"])["accessBoundary"]["accessBoundaryRules"]
    assert [
        (
            one["availableResource"],
            tuple(one["availablePermissions"]),
            one.get("availabilityCondition", {}).get("expression"),
        )
        for one in sent
    ] == [(one.resource, one.permissions, one.condition) for one in rules]

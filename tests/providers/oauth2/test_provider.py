from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.base import ProviderError, Revocable, Secret
from providers.oauth2 import PLUGIN
from providers.oauth2.config import OAuth2Scope, OAuth2Service
from tests.components.process import wait_until
from tests.fakes.endpoint import token
from tests.fakes.keys import strangers_key
from tests.fakes.provider_bench import NOW, KeptState, dependencies, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from providers.oauth2.provider import OAuth2
    from tests.components.oauth import OAuthServer
    from tests.fakes.endpoint import Endpoint

READ = OAuth2Scope(oauth_scopes=("read",))
SECRETS = {"env:SECRET": b"hunter2", "env:FIRST": b"refresh-0"}


def provider(
    url: str,
    ca_file: object,
    secrets: dict[str, bytes],
    state: KeptState | None = None,
    now: float = NOW,
    **fields: Any,
) -> OAuth2:
    config = OAuth2Service.model_validate(
        {
            "base_url": "https://api.example.com",
            "token_url": f"{url}/token",
            "grant": {"type": "client_credentials"},
            "allow_private": True,
            "ca_file": str(ca_file),
            **fields,
        }
    )
    built: OAuth2 = PLUGIN.build(config, dependencies(secrets, state, now))  # type: ignore[assignment]
    return built


def of_endpoint(endpoint: Endpoint, state: KeptState | None = None, **fields: Any) -> OAuth2:
    fields = {
        "client": {"type": "client_secret_basic", "id": "crm", "secret": "env:SECRET"},
        **fields,
    }
    return provider(endpoint.url, endpoint.ca_file, SECRETS, state, **fields)


class TestWithARealServer:
    """npm's oidc-provider."""

    @pytest.mark.parametrize("client", ["basic", "post"])
    async def test_a_client_with_a_secret_gets_what_the_scope_says(
        self, oauth_server: OAuthServer, client: str
    ) -> None:
        kind = f"client_secret_{client}"
        one = provider(
            oauth_server.url,
            oauth_server.ca_file,
            {"env:SECRET": oauth_server.secret(client)},
            client={"type": kind, "id": client, "secret": "env:SECRET"},
        )
        minted = await one.mint(request(READ))
        assert minted.expires_at == NOW + 600
        assert not isinstance(one, Revocable)
        assert minted.handle == {}
        injection = one.present(minted, request(READ))
        (name, value), *others = injection.headers
        assert (name, others) == (b"Authorization", [])
        assert value == Secret(b"Bearer " + minted.fields["access_token"].reveal())
        assert injection.secrets == (minted.fields["access_token"],)
        if client == "basic":
            known = oauth_server.introspect(minted.fields["access_token"].reveal(), client)
            assert (known["active"], known["scope"]) == (True, "read")

    async def test_a_client_with_a_key_of_its_own(self, oauth_server: OAuthServer) -> None:
        one = provider(
            oauth_server.url,
            oauth_server.ca_file,
            {"env:PEM": oauth_server.signer},
            now=time.time(),  # which the server compares with its own
            client={
                "type": "private_key_jwt",
                "id": "signer",
                "private_key": "env:PEM",
                "algorithm": "ES256",
                "audience": oauth_server.url,
            },
        )
        minted = await one.mint(request(READ))
        assert minted.fields["access_token"].reveal()

    async def test_a_scope_that_the_client_has_not_is_refused(
        self, oauth_server: OAuthServer
    ) -> None:
        one = provider(
            oauth_server.url,
            oauth_server.ca_file,
            {"env:SECRET": oauth_server.secret("basic")},
            client={"type": "client_secret_basic", "id": "basic", "secret": "env:SECRET"},
        )
        with pytest.raises(ProviderError, match="400 invalid_scope") as caught:
            await one.mint(request(OAuth2Scope(oauth_scopes=("admin",))))
        assert caught.value.untouched
        assert not caught.value.retryable

    async def test_a_token_ends_when_it_is_revoked_and_twice_is_as_good(
        self, oauth_server: OAuthServer
    ) -> None:
        one = provider(
            oauth_server.url,
            oauth_server.ca_file,
            {"env:SECRET": oauth_server.secret("basic")},
            client={"type": "client_secret_basic", "id": "basic", "secret": "env:SECRET"},
            revocation_url=f"{oauth_server.url}/token/revocation",
        )
        assert isinstance(one, Revocable)
        minted = await one.mint(request(READ))
        value = minted.fields["access_token"].reveal()
        for _ in range(2):
            await one.revoke(minted.handle)
            assert oauth_server.introspect(value, "basic") == {"active": False}

    async def test_refresh_tokens_are_used_once_and_in_turn(
        self, oauth_server: OAuthServer
    ) -> None:
        state = KeptState()
        secrets = {
            "env:SECRET": oauth_server.secret("laptop"),
            "env:FIRST": oauth_server.refresh_token(),
        }
        fields: dict[str, Any] = {
            "grant": {"type": "refresh_token", "refresh_token": "env:FIRST"},
            "client": {"type": "client_secret_basic", "id": "laptop", "secret": "env:SECRET"},
        }
        one = provider(oauth_server.url, oauth_server.ca_file, secrets, state, **fields)
        for _ in range(3):
            minted = await one.mint(request(READ))
            value = minted.fields["access_token"].reveal()
            assert oauth_server.introspect(value, "laptop")["active"]
        again = provider(oauth_server.url, oauth_server.ca_file, secrets, state, **fields)
        assert (await again.mint(request(READ))).fields
        forgetful = provider(oauth_server.url, oauth_server.ca_file, secrets, None, **fields)
        with pytest.raises(ProviderError, match=r"invalid_grant.*authorise the client anew"):
            await forgetful.mint(request(READ))  # the first has been used


class TestRefresh:
    FIELDS: ClassVar[Any] = {"grant": {"type": "refresh_token", "refresh_token": "env:FIRST"}}

    async def test_the_next_one_is_kept_before_the_token_is_used(self, endpoint: Endpoint) -> None:
        endpoint.say(200, token(refresh_token="refresh-1"))
        lost = of_endpoint(endpoint, KeptState(lost=True), **self.FIELDS)
        with pytest.raises(ProviderError, match="cannot be kept"):
            await lost.mint(request(READ))

    async def test_one_that_stays_is_not_kept(self, endpoint: Endpoint) -> None:
        state = KeptState()
        endpoint.say(200, token(refresh_token="refresh-0"))
        one = of_endpoint(endpoint, state, **self.FIELDS)
        await one.mint(request(READ))
        await one.mint(request(READ))
        assert state.values == {}
        assert [sent.form["refresh_token"] for sent in endpoint.sent] == ["refresh-0"] * 2

    async def test_another_first_one_begins_anew(self, endpoint: Endpoint) -> None:
        state = KeptState()
        endpoint.say(200, token(refresh_token="refresh-1"))
        await of_endpoint(endpoint, state, **self.FIELDS).mint(request(READ))
        secrets = SECRETS | {"env:FIRST": b"authorised-again"}
        client = {"type": "client_secret_basic", "id": "crm", "secret": "env:SECRET"}
        renewed = provider(
            endpoint.url, endpoint.ca_file, secrets, state, client=client, **self.FIELDS
        )
        await renewed.mint(request(READ))
        assert [sent.form["refresh_token"] for sent in endpoint.sent] == [
            "refresh-0",
            "authorised-again",
        ]

    async def test_the_state_names_no_secret(self, endpoint: Endpoint) -> None:
        state = KeptState()
        endpoint.say(200, token(refresh_token="refresh-1"))
        await of_endpoint(endpoint, state, **self.FIELDS).mint(request(READ))
        (key,) = state.values
        assert key == f"oauth2 {endpoint.url}/token crm env:FIRST"
        assert "refresh" not in key

    async def test_whoever_gives_up_loses_no_refresh_token(self, endpoint: Endpoint) -> None:
        state = KeptState()
        endpoint.delay = 0.3
        endpoint.say(200, token(refresh_token="refresh-1"))
        minting = asyncio.create_task(
            of_endpoint(endpoint, state, **self.FIELDS).mint(request(READ))
        )
        await asyncio.to_thread(
            wait_until, lambda: bool(endpoint.sent), "the token to be asked for"
        )
        minting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await minting
        await asyncio.to_thread(wait_until, lambda: bool(state.values), "the next one to be kept")
        assert json.loads(next(iter(state.values.values())).reveal())["newest"] == "refresh-1"


async def test_a_token_that_is_too_wide_is_ended_where_it_can_be(endpoint: Endpoint) -> None:
    endpoint.say(200, token("wide", scope="read write"))
    endpoint.say(200, b"")
    one = of_endpoint(endpoint, revocation_url=f"{endpoint.url}/revoke")
    with pytest.raises(ProviderError, match="more scopes than were asked for"):
        await one.mint(request(READ))
    assert endpoint.sent[1].path == "/revoke"
    assert endpoint.sent[1].form == {"token": "wide", "token_type_hint": "access_token"}


class TestWhatIsSent:
    async def test_a_jwt_bearer_says_who_it_is_for(self, endpoint: Endpoint) -> None:
        key = strangers_key("RS256")
        endpoint.say(200, token())
        one = provider(
            endpoint.url,
            endpoint.ca_file,
            {"env:PEM": key.private_pem()},
            grant={
                "type": "jwt_bearer",
                "issuer": "broker",
                "subject": "robot@crm",
                "private_key": "env:PEM",
                "key_id": "key-7",
            },
        )
        scope = OAuth2Scope(oauth_scopes=("read", "list"), audience="crm")
        await one.mint(request(scope))
        form = endpoint.sent[0].form
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert (form["scope"], form["audience"]) == ("read list", "crm")
        assert jwt.get_unverified_header(form["assertion"])["kid"] == "key-7"
        claims = jwt.decode(
            form["assertion"],
            key.private.public_key(),
            algorithms=["RS256"],
            audience=f"{endpoint.url}/token",
            options={"verify_exp": False, "verify_iat": False},
        )
        assert claims.pop("jti")
        assert claims == {
            "iss": "broker",
            "sub": "robot@crm",
            "aud": f"{endpoint.url}/token",
            "iat": int(NOW),
            "exp": int(NOW) + 300,
        }

    async def test_without_scopes_of_its_own_none_are_named(self, endpoint: Endpoint) -> None:
        endpoint.say(200, token())
        await of_endpoint(endpoint).mint(request(OAuth2Scope(all_scopes=True)))
        assert endpoint.sent[0].form == {"grant_type": "client_credentials"}

    async def test_a_key_that_is_none_is_told_by_its_reference(self, endpoint: Endpoint) -> None:
        client = {"type": "private_key_jwt", "id": "crm", "private_key": "env:SECRET"}
        with pytest.raises(ProviderError, match="env:SECRET is no private key") as caught:
            await of_endpoint(endpoint, client=client).mint(request(READ))
        assert "hunter2" not in str(caught.value)
        assert endpoint.sent == []


class TestNeverWider:
    @given(
        asked=st.sets(st.sampled_from("abcde"), min_size=1),
        given_=st.sets(st.sampled_from("abcdefg")),
    )
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_a_token_with_more_scopes_is_not_used(
        self, endpoint: Endpoint, asked: set[str], given_: set[str]
    ) -> None:
        endpoint.answers.clear()
        endpoint.say(200, token(scope=" ".join(sorted(given_))))
        scope = OAuth2Scope(oauth_scopes=tuple(sorted(asked)))
        minting = of_endpoint(endpoint).mint(request(scope))
        if given_ <= asked:
            assert (await minting).fields
        else:
            with pytest.raises(ProviderError, match="more scopes than were asked for") as caught:
                await minting
            assert not caught.value.untouched


class Exclusive(KeptState):
    """State that one task at a time can have."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def exclusive(self, key: str) -> AsyncIterator[Any]:
        async with self._lock, super().exclusive(key) as held:
            yield held


async def test_many_at_once_use_each_refresh_token_once(endpoint: Endpoint) -> None:
    state = Exclusive()
    for number in range(1, 11):
        endpoint.say(200, token(refresh_token=f"refresh-{number}"))
    fields: Any = {"grant": {"type": "refresh_token", "refresh_token": "env:FIRST"}}
    one = of_endpoint(endpoint, state, **fields)
    await asyncio.gather(*(one.mint(request(READ)) for _ in range(10)))
    used = [sent.form["refresh_token"] for sent in endpoint.sent]
    assert used == [f"refresh-{number}" for number in range(10)]
    assert json.loads(next(iter(state.values.values())).reveal())["newest"] == "refresh-10"


@pytest.mark.parametrize(
    "unusable",
    [{"expires_in": 10**6}, {"expires_in": None}, {"token_type": "DPoP"}, {"access_token": ""}],
)
async def test_the_next_refresh_token_outlives_an_access_token_that_is_refused(
    endpoint: Endpoint, unusable: dict[str, Any]
) -> None:
    state = KeptState()
    endpoint.say(200, {**token(refresh_token="refresh-1"), **unusable})
    endpoint.say(200, token(refresh_token="refresh-2"))
    fields: Any = {"grant": {"type": "refresh_token", "refresh_token": "env:FIRST"}}
    one = of_endpoint(endpoint, state, **fields)
    with pytest.raises(ProviderError):
        await one.mint(request(READ))
    assert (await one.mint(request(READ))).fields
    used = [sent.form["refresh_token"] for sent in endpoint.sent]
    assert used == ["refresh-0", "refresh-1"]


async def test_two_people_of_one_client_keep_their_refresh_tokens_apart(
    endpoint: Endpoint,
) -> None:
    state = KeptState()
    for following in ("ann-1", "bob-1", "ann-2", "bob-2"):
        endpoint.say(200, token(refresh_token=following))
    client = {"type": "none", "id": "crm"}
    secrets = {"env:ANN": b"ann-0", "env:BOB": b"bob-0"}
    ann, bob = (
        provider(
            endpoint.url,
            endpoint.ca_file,
            secrets,
            state,
            client=client,
            grant={"type": "refresh_token", "refresh_token": reference},
        )
        for reference in secrets
    )
    for one in (ann, bob, ann, bob):
        await one.mint(request(READ))
    used = [sent.form["refresh_token"] for sent in endpoint.sent]
    assert used == ["ann-0", "bob-0", "ann-1", "bob-1"]

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tf.types import Unknown
from tf.utils import Diagnostics

from broker.terraform.provider import BrokerProvider

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.terraform.conftest import Site

NOTHING = dict.fromkeys(("url", "token", "token_file", "ca_file", "comment"))


def configured(environment: dict[str, str], **config: Any) -> tuple[BrokerProvider, Diagnostics]:
    provider, diags = BrokerProvider(environment), Diagnostics()
    provider.configure_provider(diags, {**NOTHING, **config})
    return provider, diags


def details(diags: Diagnostics) -> str:
    return " ".join(str(one.detail) for one in diags.diagnostics)


def test_configuration_goes_over_environment(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f" {site.bench.token}\n")
    wrong = {"BROKER_ADMIN_URL": "https://nowhere.example", "BROKER_ADMIN_TOKEN": "x"}
    right = {"BROKER_ADMIN_URL": site.url, "BROKER_ADMIN_TOKEN": site.bench.token}
    in_file = {"BROKER_ADMIN_URL": site.url, "BROKER_ADMIN_TOKEN_FILE": str(file)}
    for environment, config in (
        (right, {}),
        (in_file, {}),
        (wrong, {"url": site.url, "token": site.bench.token}),
        (wrong, {"url": site.url, "token_file": str(file)}),
    ):
        provider, diags = configured(environment, **config)
        assert provider.client is not None, details(diags)
        assert not diags.has_errors()


def test_a_token_that_is_refused_is_told_and_not_repeated(site: Site) -> None:
    token = site.bench.token[:-8] + "00000000"
    provider, diags = configured({}, url=site.url, token=token)
    assert provider.client is None
    assert "an administrator's token is needed" in details(diags)
    assert token not in details(diags)


def test_a_token_that_ends_soon_is_a_warning(site: Site) -> None:
    now = 2_000_000_000
    provider, diags = configured({}, url=site.url, token=site.bench.token)
    assert provider.client is not None
    expires = provider.client.who()["expires_at"]
    assert expires > now
    assert diags.has_warnings() is False


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, "say where it is: url, or BROKER_ADMIN_URL"),
        ({"url": "https://b.example"}, "it needs an administrator's token"),
        ({"url": "https://b.example", "token_file": "/nowhere"}, "cannot be read: No such file"),
        ({"url": "https://b.example", "token_file": "/dev/zero"}, "none of an administrator"),
        ({"url": "https://b.example", "token": "sk_live_123"}, "none of an administrator"),
    ],
)
def test_what_is_missing_is_told(config: dict[str, Any], told: str) -> None:
    provider, diags = configured({}, **config)
    assert provider.client is None
    assert told in details(diags)
    assert "sk_live" not in details(diags)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe")
    _, diags = configured({}, url="https://b.example", token_file=str(file))
    assert "it is not text" in details(diags)


def test_what_is_not_known_yet_is_waited_for() -> None:
    provider, diags = configured({}, url=Unknown, token="x")
    assert provider.client is None
    assert not diags.has_errors()


def test_two_tokens_are_one_too_many() -> None:
    diags = Diagnostics()
    BrokerProvider({}).validate_config(diags, {**NOTHING, "token": "a", "token_file": "b"})
    assert diags.has_errors()
    diags = Diagnostics()
    BrokerProvider({}).validate_config(diags, {**NOTHING, "token": "a"})
    assert not diags.has_errors()


def test_the_token_is_sensitive_and_types_have_one_prefix() -> None:
    provider = BrokerProvider({})
    schema = provider.get_provider_schema(Diagnostics())
    assert [one.name for one in schema.attributes if one.sensitive] == ["token"]
    assert provider.get_model_prefix() == "broker_"
    assert provider.full_name().endswith("agent-token-broker/broker")
    assert len(provider.get_resources()) == 4
    assert len(provider.get_data_sources()) == 5

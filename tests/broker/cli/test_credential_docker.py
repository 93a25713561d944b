from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli import credential_docker
from broker.cli.credential_docker import registry_of, user_and_secret
from broker.errors import ConfigurationError
from tests.broker.cli.test_token import answering, on_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.cli.conftest import Commands

HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
NOT_FOUND = "credentials not found in native keychain\n"
POLICY = """
services:
  hub: {provider: github_app, app_id: 1, private_key: "embedded:pem", installation: acme}
scopes:
  images.read:
    service: hub
    delivery: [credential]
    registries: [ghcr.io, "registry.example:5000", docker.io]
    repositories: [shop]
    permissions: {packages: read}
  images.write:
    service: hub
    delivery: [credential]
    registries: [ghcr.io]
    repositories: [shop]
    permissions: {packages: write}
  issues.read:
    {service: hub, delivery: [credential], repositories: [shop], permissions: {issues: read}}
agents:
  reader: {trust: [{source: local, claims: {sub: reader}}], scopes: [images.read, issues.read]}
  writer: {trust: [{source: local, claims: {sub: writer}}], scopes: [images.write]}
"""
ANSWER = {
    "access_token": "a.b.c",
    "scope": "images.read",
    "expires_at": 2_750_000_900,
    "credential": {"token": "ghs_x"},
}


@pytest.fixture
def docker(broker: Commands) -> Commands:
    """Commands for a home with two agents of this policy, of which one has its key here."""
    (broker.home / "policies" / "images.yaml").write_text(POLICY)
    broker.ok("agents", "enroll", "reader")
    for path in (broker.home / "agents").glob("*.pem"):
        if path.stem != "reader":
            path.unlink()
    return broker


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, list[str]]]]:
    """What a broker was asked that always gives the token."""
    with answering(200, json.dumps(ANSWER).encode()) as (port, forms):
        on_port(monkeypatch, port)
        yield forms


@pytest.mark.parametrize(
    "server",
    ["ghcr.io", "https://ghcr.io", "https://ghcr.io/v2/", "GHCR.io\n", "registry.example:5000"],
)
def test_gets_a_login_of_a_registry_that_a_scope_names(
    docker: Commands, forms: list[dict[str, list[str]]], server: str
) -> None:
    ran = docker.ok("credential", "docker", "get", stdin=server)
    user = {"Username": "x-access-token", "Secret": "ghs_x"}
    assert ran.data == {"ServerURL": server.strip(), **user}
    assert (forms[0]["scope"], forms[0]["client_id"]) == (["images.read"], ["reader"])


@pytest.mark.parametrize(
    "server",
    [
        "quay.io",
        "ghcr.io.evil.example",
        "evil.example/ghcr.io",
        "ghcr.io:5000",
        "registry.example",
        "http://ghcr.io",
        "ftp://ghcr.io",
        "x@ghcr.io",
        "ghcr.io evil",
        "gh\ncr.io",
        "https://",
        "",
    ],
)
def test_of_another_registry_it_knows_nothing(
    docker: Commands, forms: list[dict[str, list[str]]], server: str
) -> None:
    ran = docker.run("credential", "docker", "get", stdin=server)
    assert (ran.status, ran.out, ran.err) == (1, NOT_FOUND, "")
    assert forms == []


def test_lists_them(docker: Commands, forms: list[dict[str, list[str]]]) -> None:
    assert set(docker.ok("credential", "docker", "list").data) == {
        "ghcr.io",
        "registry.example:5000",
        "docker.io",
    }
    assert forms == []


@pytest.mark.parametrize("operation", ["store", "erase", "destroy"])
def test_stores_and_erases_nothing_and_says_so(
    docker: Commands, forms: list[dict[str, list[str]]], operation: str
) -> None:
    given = '{"ServerURL":"https://ghcr.io","Username":"me","Secret":"hunter2"}'
    ran = docker.run("credential", "docker", operation, stdin=given)
    assert (ran.status, ran.err) == (1, "")
    assert len(ran.out.splitlines()) == 1
    assert "hunter2" not in ran.out
    assert forms == []


def test_two_scopes_for_one_registry_are_one_too_many(
    docker: Commands, forms: list[dict[str, list[str]]]
) -> None:
    docker.ok("agents", "enroll", "writer")
    ran = docker.run("credential", "docker", "get", stdin="ghcr.io")
    assert ran.status == 1
    assert "images.read of reader, images.write of writer" in ran.out
    assert forms == []
    assert docker.ok("credential", "docker", "get", "--agent", "writer", stdin="ghcr.io").data
    assert forms[0]["scope"] == ["images.write"]


def test_what_goes_wrong_is_told_where_docker_looks(
    docker: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = json.dumps({"error": "invalid_scope", "error_description": "not \x1b today"})
    with answering(400, refusal.encode()) as (port, _):
        on_port(monkeypatch, port)
        ran = docker.run("credential", "docker", "get", stdin="ghcr.io")
    assert (ran.status, ran.err) == (1, "")
    assert "not" in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize(
    ("server", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_docker_hub_has_several_names(server: str, registry: str) -> None:
    assert registry_of(server) == registry


@given(
    st.text()
    | st.from_regex(r"(https?://)?[a-zA-Z0-9.@:-]{1,20}(/[a-z/]{0,9})?", fullmatch=True)
    | st.tuples(st.sampled_from(["", "https://", "http://", "//", "x://"]), st.text()).map("".join)
)
def test_whatever_docker_says_it_means_the_host_that_it_would_connect_to(server: str) -> None:
    registry = registry_of(server)
    if registry:
        plain = server if server.lower().startswith("https://") else f"https://{server}"
        url = urlsplit(plain)
        assert url.scheme == "https"
        said = url.netloc.lower()
        assert registry == ("docker.io" if said in HUB else said)


def test_a_user_and_a_password_come_as_they_are() -> None:
    given: dict[str, Any] = {"credential": {"username": "u", "password": "p", "token": "t"}}
    assert user_and_secret(given) == {"Username": "u", "Secret": "p"}
    with pytest.raises(ConfigurationError, match="neither"):
        user_and_secret({"credential": {"key": "hunter2"}})


def test_it_is_a_program_of_its_own(
    docker: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["docker-credential-broker", "list"])
    with pytest.raises(SystemExit) as end:
        credential_docker.main()
    assert not end.value.code
    assert "ghcr.io" in json.loads(capsys.readouterr().out)
    assert docker.home.exists()

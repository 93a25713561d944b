from __future__ import annotations

from dataclasses import replace

import pytest

from broker.errors import ConfigurationError, PolicyError
from broker.policy.loader import Document, load_policy
from providers.http_api import PLUGIN
from tests.fakes.policies import CLOUD, CLOUD_SCOPE, PLUGINS, SMALL, changed, policy, problems


def test_is_what_its_plugin_makes_of_its_fields() -> None:
    service = policy(CLOUD_SCOPE).services["cloud"]
    assert service.plugin is CLOUD
    assert service.config.region == "eu-1"
    assert service.upstream is None
    assert service.token_slots == ()


def test_the_common_fields_are_not_the_plugins() -> None:
    text = CLOUD_SCOPE.replace("region:", "description: Ours, region:")
    assert policy(text).services["cloud"].config.region == "eu-1"


def test_a_plugins_field_is_told_with_the_common_ones() -> None:
    (found,) = problems(changed("region:", "descripton: x, region:", CLOUD_SCOPE))
    assert found == (
        "0.yaml:2:28: service 'cloud': unknown field 'descripton'; did you mean 'description'?"
    )


def test_what_the_plugin_refuses_is_told_with_its_place() -> None:
    (found,) = problems(changed("eu-1", "eu", CLOUD_SCOPE))
    assert found.startswith("0.yaml:2:36: service 'cloud', region: ")


def test_each_secret_reference_is_told_once_where_it_stands() -> None:
    text = changed('"vault:kv/cloud#key"', "paste-of-a-key", CLOUD_SCOPE)
    (found,) = problems(text)
    assert found.startswith("0.yaml:2:47: service 'cloud': not a secret reference")
    assert "paste" not in found


def test_any_service_of_the_gateway_has_its_own_timeouts() -> None:
    text = changed("base_url:", "timeouts: {connect: 500ms, idle: 2m}\n    base_url:", SMALL)
    upstream = policy(text).services["stripe"].upstream
    assert upstream is not None
    own = policy(SMALL).services["stripe"].upstream
    assert own is not None
    assert (upstream.connect_timeout, upstream.idle_timeout) == (0.5, 120.0)
    assert upstream.first_byte_timeout == own.first_byte_timeout
    app = GITHUB_APP + ", timeouts: {first_byte: 3s}}\n"
    github = load_policy([Document("a.yaml", app)]).services["github"].upstream
    assert github is not None
    assert github.first_byte_timeout == 3.0


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{connect: 2m}", "0.yaml:10:25: service 'stripe', timeouts.connect: "),
        ("{idle: -1s}", "0.yaml:10:22: service 'stripe', timeouts.idle: "),
        ("{read: 1s}", "0.yaml:10:16: service 'stripe', timeouts: unknown field 'read'"),
        ("{}", "0.yaml:10:15: service 'stripe', timeouts: give at least one"),
    ],
)
def test_other_timeouts_are_told(written: str, problem: str) -> None:
    (found,) = problems(changed("base_url:", f"timeouts: {written}\n    base_url:", SMALL))
    assert found.startswith(problem)


def test_timeouts_of_what_is_not_called_say_nothing() -> None:
    (found,) = problems(changed("region:", "timeouts: {idle: 1s}, region:", CLOUD_SCOPE))
    assert found.startswith("0.yaml:2:28: service 'cloud': nothing of it is called through the ga")


GITHUB_APP = (
    "services:\n  github: {provider: github_app, app_id: 1, installation: acme, "
    'private_key: "vault:kv/app#pem"'
)


def loaded_with(plugin: object) -> None:
    load_policy([Document("a.yaml", CLOUD_SCOPE)], plugins={**PLUGINS, "cloud": plugin})  # type: ignore[dict-item]


def test_a_plugin_may_refuse_while_it_derives() -> None:
    def upstream(_: object) -> None:
        raise ValueError("no such region")

    with pytest.raises(PolicyError, match=r"a\.yaml:2:3: service 'cloud': no such region"):
        loaded_with(replace(CLOUD, upstream=upstream))


def test_a_plugin_must_not_redefine_the_common_fields() -> None:
    class Greedy(CLOUD.service_model):  # type: ignore[misc,name-defined]
        description: str = ""

    with pytest.raises(PolicyError, match="provider 'cloud' redefines description"):
        loaded_with(replace(CLOUD, service_model=Greedy))


def test_a_plugin_that_does_not_load_is_told_where_it_is_named() -> None:
    class Broken(dict[str, object]):
        def __getitem__(self, kind: str) -> object:
            raise ConfigurationError(f"provider {kind!r} cannot be loaded: ImportError")

    with pytest.raises(PolicyError, match=r"a\.yaml:2:21: service 'cloud': provider 'cloud' cann"):
        load_policy([Document("a.yaml", CLOUD_SCOPE)], plugins=Broken(cloud=PLUGIN))  # type: ignore[arg-type]


BEARER = "{provider: http_api, base_url: 'https://a.example', credential: CREDENTIAL}"
FEDERATED = """{provider: aws_sts, role_arn: "arn:aws:iam::123456789012:role/a", region: eu-west-1,
  credentials: {type: web_identity, role_arn: "arn:aws:iam::123456789012:role/b",
  token_file: /srv/keys/master.key}}"""


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (BEARER.replace("CREDENTIAL", "{type: bearer, secret: 'file:/srv/master.key'}"), "file: "),
        (BEARER.replace("CREDENTIAL", "{type: bearer, secret: 'env:BROKER_KEY'}"), "env: "),
        (FEDERATED, "token_file: "),
    ],
)
def test_what_programs_set_leads_to_no_file_of_the_brokers_machine(service: str, told: str) -> None:
    text = f"services: {{a: {service}}}"
    with pytest.raises(PolicyError, match=f"{told}.*may stand in policy files alone"):
        load_policy([Document("api:services/a", text)])
    assert "a" in load_policy([Document("/etc/policies/a.yaml", text)]).services

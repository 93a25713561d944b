"""The Terraform provider: Terraform itself, and a broker that runs.

It plans, applies, changes, finds what others changed, imports and destroys; and it shows at the
plan what the broker would refuse. No network but loopback.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from broker.terraform.main import make_mirror
from tests.components.process import free_port
from tests.components.terraform import Terraform, TerraformError
from tests.fakes.admin_bench import BOT, READ, STRIPE, edit
from tests.integration.running_broker import BrokerHome, running_broker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.components.gate import Gate

HEAD = """
terraform {
  required_providers {
    broker = { source = "agent-token-broker/broker" }
  }
}
"""
ALL = """
provider "broker" {
  comment = "a test's"
}

resource "broker_identity_source" "ci" {
  name      = "ci"
  type      = "oidc"
  issuer    = "https://ci.example"
  audiences = ["https://broker.example"]
  settings  = { leeway = "20s", allow_extra_audiences = true }
}

resource "broker_service" "stripe" {
  name          = "stripe"
  provider_kind = "http_api"
  settings = {
    base_url   = "https://api.stripe.com"
    credential = { type = "bearer", secret = "embedded:stripe" }
    scrub      = null
  }
}

resource "broker_scope" "read" {
  name    = "stripe.read"
  service = broker_service.stripe.name
  allow   = ["GET /v1/**"]
  deny    = ["* /v1/refunds/**"]
  query   = { limit = [1, 10, { glob = "2*" }] }
  max_ttl = "15m"
  limits  = { rate = "30/minute", concurrent = 4 }
}

resource "broker_agent" "bot" {
  name   = "bot"
  scopes = [broker_scope.read.name]
  trust = [
    { source = broker_identity_source.ci.name, claims = { repository_id = "1", protected = true } },
    { source = broker_identity_source.ci.name, claims = { ref = ["a", { glob = "b/*" }] } },
  ]
}
"""
PROVIDER = 'provider "broker" {}\n'
SERVICE = """
resource "broker_service" "stripe" {
  name          = "stripe"
  provider_kind = "http_api"
  settings      = { base_url = "https://api.stripe.com", credential = CREDENTIAL }
}
""".replace("CREDENTIAL", '{ type = "bearer", secret = "embedded:stripe" }')
SCOPE = """
resource "broker_scope" "read" {
  name    = "stripe.read"
  service = SERVICE
  allow   = ["GET /v1/**"]
}
"""
REFERS = SCOPE.replace("SERVICE", "broker_service.stripe.name")


@dataclass(frozen=True)
class Site:
    """A broker with its admin API on, and where Terraform finds the provider."""

    home: BrokerHome
    url: str
    token: str
    api: httpx.Client
    program: str
    root: Path

    def terraform(self, folder: Path, text: str, **environment: str) -> Terraform:
        """Terraform in a new folder with this configuration, initialised."""
        folder.mkdir()
        given = {
            "BROKER_ADMIN_URL": self.url,
            "BROKER_ADMIN_TOKEN": self.token,
            "TF_CLI_CONFIG_FILE": str(self.root / "terraform.rc"),
            **environment,
        }
        terraform = Terraform(self.program, folder, self.root, given)
        write(terraform, text)
        terraform.run("init")
        return terraform

    def change(self, *edits: dict[str, Any]) -> None:
        """Change policy as somebody else would."""
        answer = self.api.post("/policy/changes", json={"edits": edits, "comment": "by hand"})
        assert answer.status_code == 200, answer.text

    def entry(self, section: str, name: str) -> dict[str, Any]:
        """What the broker has."""
        answer = self.api.get(f"/policy/{section}/{name}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def names(self, section: str) -> set[str]:
        """What the API keeps of a section."""
        entries = self.api.get(f"/policy/{section}").json()["entries"]
        return {entry["name"] for entry in entries if entry["origin"] == "api"}


def write(terraform: Terraform, text: str) -> None:
    (terraform.folder / "main.tf").write_text(HEAD + text)


def refused(terraform: Terraform, *words: str) -> str:
    """Run what must fail; return what it says, its lines joined."""
    with pytest.raises(TerraformError) as refusal:
        terraform.run(*words)
    return joined(str(refusal.value))


def joined(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[│╷╵]|\x1b\[\d*m", " ", text))


def unchanged(terraform: Terraform) -> bool:
    """Say whether all is as configured."""
    return "No changes." in terraform.run("plan")


@pytest.fixture(scope="module")
def running(component: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker for all tests of this module."""
    program = component.program("terraform", "install Terraform")
    root = tmp_path_factory.mktemp("site")
    port = free_port()
    home = BrokerHome.create(root / "broker" / "home", admin_port=str(port))
    create = ("admin", "token", "create", "terraform", "--expires", "2d")
    token = home.run(*create, "--can", "policy:read,policy:write").strip()
    (root / "terraform.rc").write_text(make_mirror(root / "mirror"))
    url = f"http://127.0.0.1:{port}"
    with (
        running_broker(home),
        httpx.Client(
            base_url=f"{url}/admin/v1",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        ) as api,
    ):
        yield Site(home, url, token, api, program, root)


@pytest.fixture
def site(running: Site) -> Site:
    """The broker, with nothing that the API keeps."""
    answer = running.api.post("/policy/rollback", json={"version": 0})
    assert answer.status_code == 200, answer.text
    return running


def test_plan_apply_and_change(site: Site, tmp_path: Path) -> None:
    terraform = site.terraform(tmp_path / "tf", ALL)
    assert "4 to add" in terraform.run("plan")
    assert site.names("services") == set()
    assert "4 added" in terraform.run("apply", "-auto-approve")
    assert site.entry("scopes", "stripe.read")["body"] == {
        "service": "stripe",
        "allow": ["GET /v1/**"],
        "deny": ["* /v1/refunds/**"],
        "query": {"limit": [1, 10, {"glob": "2*"}]},
        "max_ttl": "15m",
        "limits": {"rate": "30/minute", "concurrent": 4},
    }
    agent = site.entry("agents", "bot")
    assert agent["body"]["trust"][0]["claims"] == {"repository_id": "1", "protected": True}
    assert (agent["changed_by"], agent["comment"]) == ("admin:terraform", "a test's")
    assert "scrub" not in site.entry("services", "stripe")["body"]
    assert unchanged(terraform)
    changed = ALL.replace('"GET /v1/**"]', '"GET /v1/**", "POST /v1/refunds"]')
    write(terraform, changed.replace('deny    = ["* /v1/refunds/**"]', ""))
    assert "0 added, 1 changed, 0 destroyed" in terraform.run("apply", "-auto-approve")
    body = site.entry("scopes", "stripe.read")["body"]
    assert body["allow"] == ["GET /v1/**", "POST /v1/refunds"]
    assert "deny" not in body
    assert unchanged(terraform)


def test_drift_is_found_and_mended_and_all_is_destroyed(site: Site, tmp_path: Path) -> None:
    terraform = site.terraform(tmp_path / "tf", ALL)
    terraform.run("apply", "-auto-approve")
    body = {**site.entry("scopes", "stripe.read")["body"], "allow": ["* /**"]}
    site.change(edit("scopes", "stripe.read", body, "*"), edit("agents", "bot", None, "*"))
    drift = terraform.run("plan")
    assert '"* /**"' in drift
    assert "1 to add, 1 to change, 0 to destroy" in drift
    assert "1 added, 1 changed" in terraform.run("apply", "-auto-approve")
    assert site.entry("scopes", "stripe.read")["body"]["allow"][0] == "GET /v1/**"

    assert "4 destroyed" in terraform.run("destroy", "-auto-approve")
    assert not any(map(site.names, ("services", "scopes", "agents", "identity_sources")))


def test_a_plan_shows_what_the_broker_would_refuse(site: Site, tmp_path: Path) -> None:
    wrong = REFERS.replace("GET /v1/**", "GOT /v1/**")
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE + wrong)
    told = refused(terraform, "plan")
    assert "The broker refuses this policy" in told
    assert re.search(r"with broker_scope.read, on main.tf line \d+, .* allow = ", told)
    assert "'GOT' is not a method; did you mean 'GET'?" in told
    assert site.names("services") == set()

    unknown = SERVICE.replace("base_url =", "base_ur =")
    write(terraform, PROVIDER + unknown)
    told = refused(terraform, "plan")
    assert "unknown field 'base_ur'" in told
    assert "on main.tf line" in told

    site.change(
        edit(
            "services",
            "stripe",
            STRIPE | {"credential": {"type": "bearer", "secret": "embedded:stripe"}},
        )
    )
    write(terraform, PROVIDER + SCOPE.replace("SERVICE", '"stirpe"'))
    told = refused(terraform, "plan")
    assert "unknown service 'stirpe'; did you mean 'stripe'?" in told
    assert "refer to it by its resource" in told


def test_a_change_that_breaks_what_others_keep_is_told_at_the_plan(
    site: Site, tmp_path: Path
) -> None:
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE)
    terraform.run("apply", "-auto-approve")
    site.change(edit("scopes", "stripe.read", READ))
    kind = 'provider_kind = "vault_dynamic"\n  settings = { mount = "database" }\n}\n'
    write(terraform, PROVIDER + SERVICE.split("provider_kind")[0] + kind)
    told = joined(terraform.run("plan"))
    assert "Something else would no longer load" in told
    assert "scopes/stripe.read is kept by the broker" in told
    assert "0 to add, 1 to change, 0 to destroy" in told
    write(terraform, PROVIDER)
    told = refused(terraform, "apply", "-auto-approve")
    assert "unknown service 'stripe'" in told
    assert site.names("services") == {"stripe"}
    site.change(edit("scopes", "stripe.read", None, "*"))
    assert "1 destroyed" in terraform.run("apply", "-auto-approve")


def test_what_is_not_known_at_the_plan_is_judged_at_the_apply(site: Site, tmp_path: Path) -> None:
    later = """
resource "terraform_data" "url" {
  input = "URL"
}
""" + SERVICE.replace('"https://api.stripe.com"', "terraform_data.url.output")
    bad = later.replace("URL", "ftp://nowhere")
    terraform = site.terraform(tmp_path / "tf", PROVIDER + bad + REFERS)
    assert "3 to add" in terraform.run("plan")
    told = refused(terraform, "apply", "-auto-approve")
    assert "base_url" in told
    assert site.names("services") == set()
    write(terraform, PROVIDER + later.replace("URL", "https://api.stripe.com") + REFERS)
    terraform.run("apply", "-auto-approve")
    assert site.names("scopes") == {"stripe.read"}
    wrong = REFERS.replace("GET", "GOT")
    write(terraform, PROVIDER + later.replace("URL", "https://api.example.com") + wrong)
    assert "'GOT' is not a method" in refused(terraform, "plan")


def test_import_takes_over_what_is_there(site: Site, tmp_path: Path) -> None:
    bearer = {"credential": {"type": "bearer", "secret": "embedded:stripe"}}
    site.change(edit("services", "stripe", STRIPE | bearer), edit("scopes", "stripe.read", READ))
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE + REFERS)
    told = refused(terraform, "apply", "-auto-approve")
    assert "services/stripe: exists" in told
    assert "terraform import broker_service.NAME stripe" in told
    terraform.run("import", "broker_service.stripe", "stripe")
    terraform.run("import", "broker_scope.read", "stripe.read")
    assert unchanged(terraform)
    assert "there is no agents/nobody" in refused(
        site.terraform(tmp_path / "other", PROVIDER + AGENT), "import", "broker_agent.bot", "nobody"
    )


AGENT = """
resource "broker_agent" "bot" {
  name   = "bot"
  scopes = ["stripe.read"]
  trust  = [{ source = "local", claims = { sub = "bot" } }]
}
"""


def test_what_changed_after_the_plan_is_not_overwritten(site: Site, tmp_path: Path) -> None:
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE)
    terraform.run("apply", "-auto-approve")
    write(terraform, PROVIDER + SERVICE.replace("api.stripe", "api2.stripe"))
    terraform.run("plan", "-out=plan")
    body = site.entry("services", "stripe")["body"]
    site.change(edit("services", "stripe", {**body, "description": "by hand"}, "*"))
    told = refused(terraform, "apply", "plan")
    assert "services/stripe: changed" in told
    assert "Plan again" in told
    assert site.entry("services", "stripe")["body"]["description"] == "by hand"


def test_a_new_name_is_a_new_entry_made_before_the_old_one_goes(site: Site, tmp_path: Path) -> None:
    lives = "\n  lifecycle {\n    create_before_destroy = true\n  }\n}\n"
    scope = REFERS.rstrip().removesuffix("}") + lives
    agent = AGENT.replace('["stripe.read"]', "[broker_scope.read.name]")
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE + scope + agent)
    terraform.run("apply", "-auto-approve")
    write(terraform, PROVIDER + SERVICE + scope.replace("stripe.read", "stripe.look") + agent)
    told = terraform.run("apply", "-auto-approve")
    assert "1 added, 1 changed, 1 destroyed" in told
    assert site.names("scopes") == {"stripe.look"}
    assert site.entry("agents", "bot")["body"]["scopes"] == ["stripe.look"]


def test_what_a_file_defines_is_left_to_the_file(site: Site, tmp_path: Path) -> None:
    local = 'resource "broker_identity_source" "local" {\n  name = "local"\n  type = "local"\n}\n'
    terraform = site.terraform(tmp_path / "tf", PROVIDER + local)
    told = refused(terraform, "plan")
    assert "identity_sources.local is defined twice" in told
    assert "sources.yaml" in told
    told = refused(terraform, "import", "broker_identity_source.local", "local")
    assert "there is no identity_sources/local that the admin API keeps" in told


def test_data_sources_tell_of_files_and_api(site: Site, tmp_path: Path) -> None:
    text = """
data "broker_policy" "all" {}
data "broker_identity_source" "local" {
  name = "local"
}
output "type" {
  value = data.broker_identity_source.local.body.type
}
output "origin" {
  value = data.broker_identity_source.local.origin
}
output "policy_version" {
  value = data.broker_policy.all.policy_version
}
"""
    terraform = site.terraform(tmp_path / "tf", PROVIDER + text)
    terraform.run("apply", "-auto-approve")
    outputs = json.loads(terraform.run("output", "-json"))
    summary = site.api.get("/policy").json()
    assert outputs["type"]["value"] == "local"
    assert outputs["origin"]["value"] == "file"
    assert outputs["policy_version"]["value"] == summary["policy_version"]
    write(terraform, PROVIDER + 'data "broker_agent" "gone" {\n  name = "gone"\n}\n')
    assert "there is no agents/gone" in refused(terraform, "plan")


def test_a_setting_in_the_wrong_place_is_told_without_a_broker(site: Site, tmp_path: Path) -> None:
    wrong = SERVICE.replace("settings      = {", 'settings      = { provider = "x",')
    terraform = site.terraform(tmp_path / "tf", PROVIDER + wrong, BROKER_ADMIN_URL="http://[::1]:1")
    told = refused(terraform, "validate")
    assert "settings.provider has an attribute of its own: write provider_kind" in told


def test_a_token_is_in_no_file_and_no_output(site: Site, tmp_path: Path) -> None:
    log = tmp_path / "trace.log"
    terraform = site.terraform(
        tmp_path / "tf", PROVIDER + SERVICE, TF_LOG="trace", TF_LOG_PATH=str(log)
    )
    printed = terraform.run("plan", "-out=plan") + terraform.run("apply", "plan")
    printed += terraform.run("show", "-json")
    secret = site.token.rpartition("_")[2]
    with zipfile.ZipFile(terraform.folder / "plan") as plan:
        held = b"".join(plan.read(name) for name in plan.namelist())
    assert secret not in printed
    assert secret.encode() not in held + log.read_bytes()
    for path in terraform.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"BROKER_ADMIN_TOKEN": ""}, "it needs an administrator's token"),
        ({"BROKER_ADMIN_TOKEN": "sk_live_0123456789"}, "the token is none of an administrator"),
        (
            {"BROKER_ADMIN_TOKEN": "atbadm_000000000000_" + "0" * 64},
            "an administrator's token is needed",
        ),
        ({"BROKER_ADMIN_URL": ""}, "say where it is"),
        ({"BROKER_ADMIN_URL": "http://broker.example"}, "must be a URL such as https"),
        ({"BROKER_ADMIN_URL": "http://127.0.0.1:1"}, "cannot be reached: ConnectError"),
        (
            {"BROKER_ADMIN_TOKEN": "", "BROKER_ADMIN_TOKEN_FILE": "/nowhere"},
            "token_file /nowhere: cannot be read: No such file",
        ),
    ],
)
def test_what_keeps_it_from_the_api_is_told(
    site: Site, tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE, **environment)
    said = refused(terraform, "plan")
    assert told in said
    assert "sk_live" not in said
    assert "Traceback" not in said


def test_a_token_in_a_file_and_the_control_plane_is_no_admin_api(
    site: Site, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{site.token}\n")
    provider = f'provider "broker" {{\n  token_file = "{file}"\n}}\n'
    terraform = site.terraform(tmp_path / "tf", provider + SERVICE, BROKER_ADMIN_TOKEN="")
    assert "1 to add" in terraform.run("plan")
    other = replace(
        terraform,
        environment={**terraform.environment, "BROKER_ADMIN_URL": site.home.control_url},
    )
    assert "admin API" in refused(other, "plan")


def test_a_reader_can_plan_and_is_told_that_it_cannot_apply(site: Site, tmp_path: Path) -> None:
    create = ("admin", "token", "create", "reader", "--expires", "1h", "--can", "policy:read")
    reader = site.home.run(*create).strip()
    terraform = site.terraform(tmp_path / "tf", PROVIDER + SERVICE, BROKER_ADMIN_TOKEN=reader)
    planned = joined(terraform.run("plan"))
    assert "1 to add" in planned
    assert "The token expires soon" in planned
    assert "policy:write is needed" in refused(terraform, "apply", "-auto-approve")
    assert site.names("services") == set()


def test_the_example_of_the_manual_is_applied(site: Site, tmp_path: Path) -> None:
    manual = (Path(__file__).resolve().parents[2] / "docs" / "terraform-provider.md").read_text()
    example = manual.split("```hcl\n")[1].split("```")[0]
    terraform = site.terraform(tmp_path / "tf", "")
    (terraform.folder / "main.tf").write_text(example)
    assert "4 added" in terraform.run("apply", "-auto-approve")
    assert site.names("agents") == {"release-bot"}
    assert unchanged(terraform)
    terraform.run("fmt", "-check", "-diff")


def test_policy_set_by_terraform_is_exported_and_rolled_back(site: Site, tmp_path: Path) -> None:
    terraform = site.terraform(tmp_path / "tf", ALL)
    terraform.run("apply", "-auto-approve")
    text = site.home.run("policy", "export", "--api-only")
    assert "admin:terraform: a test's" in text
    assert "stripe.read:" in text
    history = json.loads(site.home.run("policy", "history", "--json"))
    site.home.run("policy", "rollback", str(history[0]["version"] - 1), "--yes")
    assert site.names("agents") == set()
    assert "1 to add" in terraform.run("plan")
    assert BOT["scopes"] == ["stripe.read"]

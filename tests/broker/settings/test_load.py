from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import ConfigurationError
from broker.settings import home_directory, load_settings


def write(home: Path, content: str, mode: int = 0o600) -> Path:
    path = home / "broker.toml"
    path.write_text(content)
    path.chmod(mode)
    return path


def problems(home: Path, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(home, environment or {})
    return str(caught.value).splitlines()


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {})
    assert settings.home == tmp_path
    assert settings.issuer == "http://127.0.0.1:8700"
    assert settings.vault.address is None


def test_environment_goes_over_file_over_defaults(tmp_path: Path) -> None:
    write(tmp_path, 'drain = "5m"\nlog_level = "debug"\n[gateway]\nport = 9001\n')
    settings = load_settings(
        tmp_path, {"BROKER_GATEWAY_PORT": "9002", "BROKER_LOG_LEVEL": "warning"}
    )
    assert (settings.drain, settings.log_level) == (300, "warning")
    assert (settings.gateway.port, settings.control.port) == (9002, 8700)


def test_a_command_line_goes_over_everything(tmp_path: Path) -> None:
    write(tmp_path, "[gateway]\nport = 9001\n")
    settings = load_settings(
        tmp_path, {"BROKER_GATEWAY_PORT": "9002"}, {"gateway.port": 9003, "log_level": "error"}
    )
    assert (settings.gateway.port, settings.log_level) == (9003, "error")


def test_the_issuer_follows_the_control_plane_unless_it_is_set(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"BROKER_CONTROL_PORT": "9"}).issuer == "http://127.0.0.1:9"
    settings = load_settings(tmp_path, {"BROKER_ISSUER": "https://broker.example.com/"})
    assert settings.issuer == "https://broker.example.com"


def test_a_password_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"BROKER_VAULT_ADDRESS": "https://me:hunter2@vault.example"})
    assert "BROKER_VAULT_ADDRESS" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hunter2@", "hu@nt/er2"])
def test_a_password_does_not_stand_in_the_url_of_limits(tmp_path: Path, password: str) -> None:
    url = f"redis://:{password}@counts.example:6379"
    (problem,) = problems(tmp_path, {"BROKER_LIMITS_URL": url})
    assert "username and password_file beside it" in problem or "expected a URL" in problem
    assert "hun" not in problem
    assert "ter2" not in problem


def test_a_user_of_limits_needs_a_password(tmp_path: Path) -> None:
    write(tmp_path, '[limits]\nurl = "redis://127.0.0.1"\nusername = "broker"\n')
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'broker.toml'}:3: limits.username")
    assert "limits.password_file" in problem


def test_limits_are_settings_like_others(tmp_path: Path) -> None:
    write(tmp_path, '[limits]\nurl = "unix:///run/redis.sock"\npassword_file = "/etc/redis"\n')
    limits = load_settings(tmp_path, {}).limits
    assert (limits.url, limits.password_file) == ("unix:///run/redis.sock", Path("/etc/redis"))
    assert load_settings(tmp_path / "other", {}).limits.url is None


def test_an_open_listener_needs_an_issuer(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"BROKER_CONTROL_HOST": "0.0.0.0"})  # noqa: S104 - refused
    assert "issuer is not set" in problem
    assert 'issuer = "https://' in problem


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'isuer = "x"\ndrain = "15 minutes"\n[gatway]\nport = 1\n'
        "[gateway]\nprot = 8\n# port = 1\nport = 70000\n",
    )
    duration = 'a duration such as "30s", "15m" or "1h"'
    found = problems(tmp_path, {"BROKER_LOG_LEVL": "info", "BROKER_MASTER_KEY": "x"})
    assert found == [
        f"{path}:1: unknown setting 'isuer'; did you mean 'issuer'?",
        f"{path}:3: unknown setting 'gatway'; did you mean 'gateway'?",
        f"{path}:6: unknown setting 'gateway.prot'; did you mean 'gateway.port'?",
        "$BROKER_LOG_LEVL: unknown setting; did you mean 'BROKER_LOG_LEVEL'?",
        f"{path}:2: drain is '15 minutes'; expected {duration}",
        f"{path}:8: gateway.port is 70000; expected a port from 0 to 65535",
    ]


def test_a_dotted_key_has_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "\ngateway.port = 70000\n")
    assert problems(tmp_path)[0].startswith(f"{path}:2: gateway.port")


def test_a_table_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 'gateway = "fast"\n')
    assert problems(tmp_path)[0].startswith(f"{path}:1: unknown setting 'gateway'")


def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "port == 1\n")
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{path}: not TOML")
    assert "line 1" in problem


def test_kubernetes_service_links_are_no_settings(tmp_path: Path) -> None:
    load_settings(
        tmp_path,
        {
            "BROKER_SERVICE_HOST": "10.0.0.1",
            "BROKER_PORT": "tcp://10.0.0.1:8700",
            "BROKER_PORT_8700_TCP_ADDR": "10.0.0.1",
        },
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_could_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path, "", mode)
    assert f"chmod go-w {path}" in problems(tmp_path)[0]


def test_a_file_that_others_may_read_is_fine(tmp_path: Path) -> None:
    write(tmp_path, 'drain = "1m"\n', 0o644)
    assert load_settings(tmp_path, {}).drain == 60


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    real = write(tmp_path, "")
    link = tmp_path / "linked"
    link.mkdir()
    (link / "broker.toml").symlink_to(real)
    assert "cannot be read" in problems(link)[0]


def test_home_is_chosen_by_argument_then_environment_then_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/srv/someone")
    chosen = Path("/srv/one")
    assert home_directory(chosen, {"BROKER_HOME": "/srv/two"}) == chosen
    assert home_directory(None, {"BROKER_HOME": "/srv/two"}) == Path("/srv/two")
    assert home_directory(None, {}) == Path("/srv/someone/.agent-token-broker")


@pytest.mark.parametrize("bad", ["0", "65", '"two"', "-1", "1.5", "true", '""'])
def test_workers_are_few_and_whole(tmp_path: Path, bad: str) -> None:
    write(tmp_path, f"workers = {bad}\n")
    assert "expected a whole number from 1 to 64" in problems(tmp_path)[0]


def test_several_workers_cannot_share_one_unwrapping(tmp_path: Path) -> None:
    wrapped = 'workers = 2\n[vault]\naddress = "https://vault.example"\nsecret_id_wrapped = true\n'
    write(tmp_path, wrapped)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"{tmp_path / 'broker.toml'}:1: workers is 2")
    assert "vault.secret_id_wrapped" in problem
    write(tmp_path, wrapped.replace("workers = 2", "workers = 1"))
    assert load_settings(tmp_path, {}).workers == 1


def test_the_admin_api_is_off_unless_it_is_given_a_port(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}).admin_url is None
    settings = load_settings(tmp_path, {"BROKER_ADMIN_PORT": "8702"})
    assert settings.admin_url == "http://127.0.0.1:8702"
    given = {"BROKER_ADMIN_PORT": "8702", "BROKER_ADMIN_URL": "https://admin.example"}
    assert load_settings(tmp_path, given).admin_url == "https://admin.example"


def test_tokens_of_administrators_cross_no_network_in_the_clear(tmp_path: Path) -> None:
    open_to_all = {"BROKER_ADMIN_PORT": "8702", "BROKER_ADMIN_HOST": "0.0.0.0"}  # noqa: S104
    (problem,) = problems(tmp_path, open_to_all)
    assert "admin.url is not set" in problem
    url = {"BROKER_ADMIN_URL": "http://broker.example.com"}
    assert "https" in problems(tmp_path, open_to_all | url)[0]
    url = {"BROKER_ADMIN_URL": "https://broker.example.com"}
    assert load_settings(tmp_path, open_to_all | url).admin.host == "0.0.0.0"  # noqa: S104


def test_what_the_terraform_provider_is_given_is_no_mistake(tmp_path: Path) -> None:
    names = ("BROKER_ADMIN_TOKEN", "BROKER_ADMIN_TOKEN_FILE", "BROKER_ADMIN_CA_FILE")
    load_settings(tmp_path, dict.fromkeys(names, "x"))

"""Read settings from where people put them; report every mistake at once, with its place."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.errors import ConfigurationError, did_you_mean
from broker.settings.model import (
    AdminSettings,
    AuditSettings,
    ControlSettings,
    GatewaySettings,
    LimitsSettings,
    Settings,
    VaultSettings,
)
from broker.settings.values import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOME: Final = "~/.agent-token-broker"

_ELSEWHERE: Final = frozenset(
    {
        "BROKER_HOME",
        "BROKER_MASTER_KEY",
        "BROKER_DEBUG",
        "BROKER_ADMIN_TOKEN",
        "BROKER_ADMIN_TOKEN_FILE",
        "BROKER_ADMIN_CA_FILE",
    }
)
"""Variables that are read elsewhere: the home, the master key, the wish for tracebacks, and what
the Terraform provider is given."""

_KUBERNETES_LINK: Final = re.compile(r"BROKER_(SERVICE_(HOST|PORT)|PORT$|PORT_\d+_(TCP|UDP))")
"""What Kubernetes sets in each pod of a namespace with a service named `broker`."""

_TABLES: Final[Mapping[str, type[Any]]] = {
    "control": ControlSettings,
    "gateway": GatewaySettings,
    "admin": AdminSettings,
    "audit": AuditSettings,
    "vault": VaultSettings,
    "limits": LimitsSettings,
}


@dataclass(frozen=True, slots=True)
class _Given:
    """A value and the place to name when it is wrong."""

    value: object
    place: str


def _known() -> dict[tuple[str, str], Field[Any]]:
    known = {("", item.name): item for item in fields(Settings) if item.metadata}
    for table, model in _TABLES.items():
        known |= {(table, item.name): item for item in fields(model)}
    return known


_KNOWN: Final = _known()


def home_directory(home: Path | None, environment: Mapping[str, str]) -> Path:
    """Return the absolute home: `home`, else $BROKER_HOME, else `~/.agent-token-broker`."""
    chosen = home or Path(environment.get("BROKER_HOME") or DEFAULT_HOME)
    return chosen.expanduser().absolute()


def load_settings(
    home: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of the broker at `home`.

    `overrides` are what a command line gave, by dotted name (`{"gateway.port": 0}`).
    `environment` is the process's unless given.

    Raises:
        ConfigurationError: names every mistake, each with its file and line or its variable.
    """
    environment = os.environ if environment is None else environment
    home = home_directory(home, environment)
    problems: list[str] = []
    given = _from_file(home / "broker.toml", problems)
    given |= _from_environment(environment, problems)
    for dotted, value in (overrides or {}).items():
        table, _, key = dotted.rpartition(".")
        given[table, key] = _Given(value, f"--{key}")
    settings = _build(home, given, problems)
    if problems:
        raise ConfigurationError("\n".join(problems))
    return settings


def _from_file(path: Path, problems: list[str]) -> dict[tuple[str, str], _Given]:
    content = _read(path)
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path}: not TOML: {error}")
        return {}
    given: dict[tuple[str, str], _Given] = {}
    for key, value in document.items():
        inner = value if key in _TABLES and isinstance(value, dict) else None
        names = [("", key)] if inner is None else [(key, name) for name in inner]
        for table, name in names:
            place = f"{path}:{_line(content, table, name)}"
            if (table, name) in _KNOWN:
                given[table, name] = _Given(value if inner is None else inner[name], place)
            else:
                problems.append(f"{place}: unknown setting {_dotted(table, name)!r}")
                problems[-1] += did_you_mean(
                    _dotted(table, name), [*(_dotted(*known) for known in _KNOWN), *_TABLES]
                )
    return given


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        found = os.fstat(descriptor)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise ConfigurationError(
                f"{path}: somebody else could change it (owner {found.st_uid}, mode "
                f"{found.st_mode & 0o777:04o}); own it and run `chmod go-w {path}`"
            )
        return file.read()


def _line(content: str, table: str, key: str) -> int:
    """Return the line of a key. A scan suffices: it is for people, and TOML has been parsed."""
    current = ""
    for number, line in enumerate(content.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([\w-]+)\s*\]", line):
            current = header[1]
            if not table and key == current:
                return number
        names = {table: key, "": f"{table}.{key}"} if table else {"": key}
        name = names.get(current)
        if name is not None and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return number
    return 1


def _from_environment(
    environment: Mapping[str, str], problems: list[str]
) -> dict[tuple[str, str], _Given]:
    variables = {_variable(table, key): (table, key) for table, key in _KNOWN}
    given = {}
    for name in sorted(environment):
        if name in variables:
            given[variables[name]] = _Given(environment[name], f"${name}")
        elif (
            name.startswith("BROKER_")
            and name not in _ELSEWHERE
            and not _KUBERNETES_LINK.match(name)
        ):
            problems.append(f"${name}: unknown setting{did_you_mean(name, variables)}")
    return given


def _build(home: Path, given: Mapping[tuple[str, str], _Given], problems: list[str]) -> Settings:
    chosen: dict[str, dict[str, Any]] = {"": {}, **{table: {} for table in _TABLES}}
    for (table, key), item in given.items():
        try:
            chosen[table][key] = _KNOWN[table, key].metadata["read"](item.value)
        except ValueError as error:
            found = f"{_dotted(table, key)} is {_shown(item.value)}"
            problems.append(f"{item.place}: {found}; expected {error}")
    tables = {name: model(**chosen[name]) for name, model in _TABLES.items()}
    control: ControlSettings = tables["control"]
    vault: VaultSettings = tables["vault"]
    if chosen[""].get("workers", 1) > 1 and vault.secret_id_wrapped:
        problems.append(
            f"{given['', 'workers'].place}: workers is {chosen['']['workers']}, and a wrapped "
            "secret_id can be unwrapped by one of them alone; set vault.secret_id_wrapped to "
            "false and give a secret_id for several uses, or run one worker"
        )
    limits: LimitsSettings = tables["limits"]
    if limits.username is not None and limits.password_file is None:
        problems.append(
            f"{given['limits', 'username'].place}: limits.username is set, and its password is "
            "not: name the file that holds it as limits.password_file"
        )
    if "issuer" not in chosen[""]:
        if not is_loopback(control.host):
            problems.append(
                f"issuer is not set, and control.host is {control.host!r}: say in broker.toml "
                'by which https URL agents reach the broker, as in issuer = "https://..."'
            )
        chosen[""]["issuer"] = Settings(home, control=control).control_url
    admin: AdminSettings = tables["admin"]
    if admin.port is not None and admin.url is None and not is_loopback(admin.host):
        problems.append(
            f"admin.host is {admin.host!r}, and admin.url is not set: tokens must not cross a "
            "network in the clear. Put TLS in front of it, and say in broker.toml by which https "
            'URL administrators reach it, as in url = "https://..." in the table [admin]'
        )
    return Settings(home=home, **chosen[""], **tables)


def _dotted(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _variable(table: str, key: str) -> str:
    return "_".join(filter(None, ("BROKER", table.upper(), key.upper())))


def _shown(value: object) -> str:
    """Return a value for an error text: short, and without a password that stood in a URL."""
    return re.sub(r"//.*@", "//...@", repr(value))[:100]

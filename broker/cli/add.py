"""`broker add`: let agents use a service, from the catalogue or at any base URL."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import catalogue, output
from broker.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.keys.sealing import MasterKey
    from broker.settings import Settings
    from providers.base import Secret

_CREDENTIALS: Final = "bearer, header:NAME, basic:USER, query:NAME or cookie:NAME"


NameArgument = Annotated[
    str | None, typer.Argument(help="A service of the catalogue; without, see the catalogue.")
]
RenameOption = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Call the service NAME.")
]
AgentOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Who may use it; default: the only agent.")
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="SCOPE", help="What the agent may do with it (repeatable)."),
]
ParameterOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter of it (repeatable)."),
]
SecretStdinOption = Annotated[
    bool,
    typer.Option("--secret-stdin", metavar="", help="Read each secret from a line of stdin."),
]
VaultOption = Annotated[
    str | None,
    typer.Option(metavar="PATH#FIELD", help="Its secret is in Vault, as in kv/stripe#key."),
]
BaseUrlOption = Annotated[
    str | None, typer.Option(metavar="URL", help="Add the API at this URL instead.")
]
CredentialOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help=f"How the API at --base-url wants its key: {_CREDENTIALS}; default: bearer.",
    ),
]
AllowPrivateOption = Annotated[
    bool, typer.Option("--allow-private", metavar="", help="It has a private address.")
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Trust the authorities in this PEM file, and no others."),
]
InsecureHttpOption = Annotated[
    bool, typer.Option("--insecure-http", metavar="", help="Send its key over plain http.")
]


@dataclass(frozen=True, slots=True)
class Addition:
    """What is to be added: a service, where its secrets are, who may use it for what."""

    service: str
    entry: catalogue.Entry
    parameters: Mapping[str, str]
    references: Mapping[str, str]
    agent: str
    scopes: tuple[str, ...]

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """The scopes that the service comes with."""
        return scopes_of(self.entry, self.service)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("add")(add)


def add(  # noqa: PLR0913 - each is an option
    name: NameArgument = None,
    *,
    rename: RenameOption = None,
    agent: AgentOption = None,
    scope: ScopeOption = None,
    parameter: ParameterOption = None,
    secret_stdin: SecretStdinOption = False,
    vault: VaultOption = None,
    base_url: BaseUrlOption = None,
    credential: CredentialOption = None,
    ca_file: CaFileOption = None,
    allow_private: AllowPrivateOption = False,
    insecure_http: InsecureHttpOption = False,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Let an agent use a service: one of the catalogue, or any API with --base-url."""
    if name is None:
        _show_catalogue(json=json)
        return
    from broker.app.home import open_keys
    from broker.cli.agents import choose_agent
    from broker.cli.documents import require_name

    settings = output.settings_from(home)
    keys = open_keys(settings)
    service = rename or name
    require_name("a service", service)
    entry = _entry(name, base_url, credential)
    switches = {"allow_private": allow_private, "insecure_http": insecure_http}
    entry = entry.reached({switch: True for switch, on in switches.items() if on})
    if ca_file is not None:
        entry = entry.reached({"ca_file": _trusted(ca_file)})
    addition = Addition(
        service=service,
        entry=entry,
        parameters=_parameters(entry, parameter or []),
        references=_references(entry, service, vault),
        agent=choose_agent(settings, agent),
        scopes=_granted(entry, service, scope),
    )
    path = _write(settings, keys.master, addition, ask=vault is None, from_stdin=secret_stdin)
    output.emit(_summary(settings, addition, path), lambda: _tell(settings, addition, path), json)


def _entry(name: str, base_url: str | None, credential: str | None) -> catalogue.Entry:
    if base_url is not None:
        return catalogue.any_api(name, base_url, credential or "bearer")
    entry = catalogue.load(name)
    if credential is not None:
        raise ConfigurationError(
            f"--credential: the catalogue says how {entry.title} wants its key; leave it out, or "
            "say with --base-url where another API is"
        )
    return entry


def _trusted(ca_file: Path) -> str:
    """Return a CA file's absolute path; raise `ConfigurationError` if it holds no certificate."""
    from broker.http import authorities

    path = str(ca_file.absolute())  # a link stays one: it may lead to a newer file by tomorrow
    authorities(path)
    return path


def _write(
    settings: Settings, master: MasterKey, addition: Addition, *, ask: bool, from_stdin: bool
) -> Path:
    """Write the service's policy, its grant and its secrets; nothing before all is known."""
    from broker.app.trail import recorded
    from broker.cli.documents import Documents

    documents = Documents(settings)
    text = addition.entry.policy(addition.service, addition.parameters, addition.references)
    path = documents.add(f"services/{addition.service}.yaml", text)
    documents.grant(addition.agent, addition.scopes)
    documents.check()
    secrets = _read_secrets(addition.entry, from_stdin=from_stdin) if ask else {}
    granted = f"{' '.join(addition.scopes)} to {addition.agent}"
    with recorded(settings, "service.add", f"granted {granted}", service=addition.service):
        _store(settings, master, addition, secrets)
        documents.write()
    return path


def scopes_of(entry: catalogue.Entry, service: str) -> tuple[str, ...]:
    """Return the names of the scopes that `entry` defines for `service`."""
    import yaml

    document = yaml.safe_load(catalogue.fill(entry.template, {"name": service}))
    return tuple(document["scopes"])


def _granted(entry: catalogue.Entry, service: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    known = scopes_of(entry, service)
    chosen = [
        scope if scope.startswith(f"{service}.") else f"{service}.{scope}"
        for scope in wanted or entry.grant
    ]
    for scope in chosen:
        if scope not in known:
            raise ConfigurationError(
                f"--scope: {service} has no scope {scope!r}{did_you_mean(scope, known)}; "
                f"it has {', '.join(known)}"
            )
    return tuple(dict.fromkeys(chosen))


def _parameters(entry: catalogue.Entry, given: Sequence[str]) -> dict[str, str]:
    values = dict(item.partition("=")[::2] for item in given)
    for key in values:
        if key not in entry.parameters:
            raise ConfigurationError(
                f"--set {key}: {entry.title} asks for {', '.join(entry.parameters) or 'nothing'}"
                f"{did_you_mean(key, entry.parameters)}"
            )
    for key, parameter in entry.parameters.items():
        if key not in values and sys.stdin.isatty():
            values[key] = typer.prompt(parameter.ask, parameter.default)
        elif key not in values and parameter.default is not None:
            values[key] = parameter.default
        if key not in values or not parameter.accepts(values[key]):
            found = repr(values[key]) if key in values else "missing"
            raise ConfigurationError(
                f"{entry.title}: {key} is {found}; expected {parameter.ask.lower()}, "
                f"as in --set {key}={parameter.example}"
            )
    return values


def _references(entry: catalogue.Entry, service: str, vault: str | None) -> dict[str, str]:
    if vault is None:
        only = len(entry.secrets) == 1
        return {
            field: f"embedded:{service}"
            if only
            else f"embedded:{service}-{field}".replace("_", "-")
            for field in entry.secrets
        }
    path, _, field = vault.removeprefix("vault:").partition("#")
    if field and len(entry.secrets) > 1:
        raise ConfigurationError(
            f"{entry.title} has {len(entry.secrets)} secrets: name the path alone, as in "
            f"--vault {path}, where the fields {', '.join(entry.secrets)} are"
        )
    return {name: f"vault:{path}#{field or name}" for name in entry.secrets}


def _read_secrets(entry: catalogue.Entry, *, from_stdin: bool) -> dict[str, Secret]:
    from providers.base import Secret

    values: dict[str, Secret] = {}
    for field, hint in entry.secrets.items():
        if from_stdin:
            text = sys.stdin.readline().rstrip("\r\n")
        elif sys.stdin.isatty():
            typer.echo(hint, err=True)
            text = typer.prompt(f"{field} (not shown)", hide_input=True, err=True).strip()
        else:
            raise ConfigurationError(
                "there is no terminal to ask for the secret at: pipe it in with --secret-stdin, "
                "or name where it is with --vault"
            )
        if not text:
            raise ConfigurationError(f"no {field} was given ({hint}); nothing was changed")
        values[field] = Secret(text.encode())
    return values


def _store(
    settings: Settings, master: MasterKey, addition: Addition, secrets: Mapping[str, Secret]
) -> None:
    from broker.app.home import open_store
    from broker.app.trail import recorded

    if not secrets:
        return
    with closing(open_store(settings, master)) as store:
        for field, secret in secrets.items():
            reference = addition.references[field]
            with recorded(settings, "secret.put", reference, service=addition.service):
                store.put(reference.removeprefix("embedded:"), secret)


def _show_catalogue(*, json: bool) -> None:
    entries = [catalogue.load(name) for name in catalogue.names()]
    data = [{"name": entry.name, "title": entry.title, "about": entry.about} for entry in entries]

    def human() -> None:
        output.table(("name", "title", "what for"), [(e.name, e.title, e.about) for e in entries])
        output.next_steps(
            ("broker add NAME", "add one of these"),
            ("broker add NAME --base-url URL", "add any other API"),
        )

    output.emit(data, human, json)


def _summary(settings: Settings, addition: Addition, path: Path) -> dict[str, Any]:
    return {
        "service": addition.service,
        "policy": str(path),
        "secrets": list(addition.references.values()),
        "agent": addition.agent,
        "granted": list(addition.scopes),
        "scopes": list(addition.all_scopes),
        "base_url": f"{settings.gateway_url}/{addition.service}",
    }


def _tell(settings: Settings, addition: Addition, path: Path) -> None:
    from broker.cli.agents import own_agents

    base_url = f"{settings.gateway_url}/{addition.service}"
    others = [scope for scope in addition.all_scopes if scope not in addition.scopes]
    lines = {
        "policy": str(path),
        "secret": ", ".join(addition.references.values()),
        "granted": f"{' '.join(addition.scopes)} to {addition.agent}",
        "not granted": " ".join(others) or "-",
    }
    typer.echo(f"{addition.entry.title} is added as {addition.service}.")
    for label, text in lines.items():
        typer.echo(f"  {label:<13}{output.printable(text)}")
    for note in addition.entry.notes:
        typer.echo(
            f"  {'note':<13}{catalogue.fill(note, {'gateway': base_url, **_names(addition)})}"
        )
    agent = "" if own_agents(settings) == {addition.agent} else f" --agent {addition.agent}"
    scopes = "".join(f" --scope {scope}" for scope in addition.scopes)
    output.next_steps(
        ("broker serve", "if it is not running"),
        (f"TOKEN=$(broker token{agent}{scopes})", "a task token, for some minutes"),
        (_example_call(addition, base_url), "a call with it"),
        *(
            [(f"broker agents grant {addition.agent} {others[0]}", "let it do more")]
            if others
            else []
        ),
    )


def _example_call(addition: Addition, base_url: str) -> str:
    """Return a command line that one of the granted scopes allows, a reading one if possible."""
    requests = [
        example.request.partition(" ")[::2]
        for example in addition.entry.examples
        if example.expect == "allow" and f"{addition.service}.{example.scope}" in addition.scopes
    ]
    method, path = min(requests, key=lambda request: request[0] != "GET", default=("GET", "/"))
    verb = "" if method == "GET" else f"-X {method} "
    url = base_url + catalogue.fill(path, _names(addition))
    return f'curl {verb}-H "Authorization: Bearer $TOKEN" {url}'


def _names(addition: Addition) -> dict[str, str]:
    return {"name": addition.service, **addition.parameters}

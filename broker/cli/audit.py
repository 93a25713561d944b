"""`broker audit`: prove that the trail is whole, and keep what proves it later."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from broker.cli import output
from broker.errors import ConfigurationError

if TYPE_CHECKING:
    from broker.audit.head import Anchor
    from broker.audit.statement import TrustedKeys
    from broker.audit.verify import Report, WriterReport

_ANCHOR: Final = re.compile(
    r"(?:(?P<writer>[a-z][a-z0-9_.]*):)?(?P<seq>\d{1,12}):(?P<hash>[0-9a-f]{64})"
)
_DEFAULT_WRITER: Final = "main"

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Trust the public keys in this file (a JWK, a JWK Set, or what `audit head --json` "
        "printed), and not those of this home.",
    ),
]
DirectoryOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="A copy of a trail to look at.")
]


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(help="Prove that the audit trail is whole.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("head")(head)
    app.add_typer(group, name="audit")


def verify(
    *,
    anchor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|[WRITER:]SEQ:HASH",
            help="A record that must be there: what `broker audit head` printed (repeatable).",
        ),
    ] = None,
    directory: DirectoryOption = None,
    key: KeyOption = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Check every record of the trail; name the first bad one and end with status 1."""
    from broker.audit.verify import verify as check

    trusted, place = _opened(home, key, directory)
    anchors = [found for text in anchor or () for found in _anchors(text, trusted)]
    try:
        report = check(place, trusted, anchors)
    except OSError as error:
        raise ConfigurationError(f"{place}: cannot be read: {error.strerror}") from None
    output.emit(_as_data(report), lambda: _show(report), json)
    if not report.whole:
        raise typer.Exit(1)


def head(
    *,
    directory: DirectoryOption = None,
    key: KeyOption = None,
    home: output.HomeOption = None,
    json: output.JsonOption = False,
) -> None:
    """Print the last record of each writer; keep it elsewhere, to prove later that it was there."""
    import orjson

    from broker.audit.head import BadHead, head_path, parse_head, writers_with_head

    trusted, place = _opened(home, key, directory)
    heads: list[dict[str, Any]] = []
    for writer in writers_with_head(place):
        data = head_path(place, writer).read_bytes()
        found = parse_head(data, trusted)
        if isinstance(found, BadHead):
            raise ConfigurationError(f"{head_path(place, writer)}: {found.problem}")
        heads.append(orjson.loads(data))

    def show() -> None:
        for item in heads:
            typer.echo(f"{item['writer']}:{item['seq']}:{item['hash']}")

    output.emit({"heads": heads, "keys": [dict(jwk) for jwk in trusted.jwks]}, show, json)


def _opened(
    home: Path | None, key: Path | None, directory: Path | None
) -> tuple[TrustedKeys, Path]:
    """Return the keys to trust and the directory to look at.

    With both given no home is needed: whoever verifies may be on another machine.
    """
    from broker.app.home import Places, open_keys
    from broker.app.trail import trusted_keys
    from broker.audit.statement import TrustedKeys
    from broker.keys.jwk import verify_es256

    if key is not None and directory is not None:
        return TrustedKeys(_public_keys(key), verify_es256), directory
    settings = output.settings_from(home)
    place = directory or Places(settings.home).audit
    if key is not None:
        return TrustedKeys(_public_keys(key), verify_es256), place
    return trusted_keys(open_keys(settings).audit), place


def _public_keys(path: Path) -> tuple[dict[str, str], ...]:
    document = _read_json(path, "--key")
    keys = document.get("keys", [document])
    if not isinstance(keys, list) or not all(
        isinstance(key, dict) and key.get("kty") == "EC" and "kid" in key for key in keys
    ):
        raise ConfigurationError(f"{path}: expected a JWK or JWK Set of P-256 keys with `kid`")
    if any("d" in key for key in keys):
        raise ConfigurationError(f"{path}: holds a private key; give the public one alone")
    return tuple(keys)


def _anchors(text: str, trusted: TrustedKeys) -> list[Anchor]:
    import orjson

    from broker.audit.head import Anchor, BadHead, parse_head

    if match := _ANCHOR.fullmatch(text):
        return [Anchor(match["writer"] or _DEFAULT_WRITER, int(match["seq"]), match["hash"])]
    path = Path(text)
    document = _read_json(path, "--anchor")
    heads = document.get("heads", [document])
    anchors = []
    for item in heads if isinstance(heads, list) else [heads]:
        found = parse_head(orjson.dumps(item), trusted)
        if isinstance(found, BadHead):
            raise ConfigurationError(f"{path}: holds no head that can be believed: {found.problem}")
        anchors.append(found.anchor)
    return anchors


def _read_json(path: Path, option: str) -> dict[str, Any]:
    import orjson

    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ConfigurationError(f"{option} {path}: is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{option} {path}: expected a JSON object")
    return document


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "whole": report.whole,
        "writers": [_writer_data(writer) for writer in report.writers],
        "findings": [asdict(finding) for finding in report.findings],
    }


def _writer_data(writer: WriterReport) -> dict[str, Any]:
    last = writer.last._asdict() if writer.last else None
    return {**asdict(writer), "last": last}


def _show(report: Report) -> None:
    for writer in report.writers:
        last = f", the last is {writer.last.seq}:{writer.last.hash}" if writer.last else ""
        typer.echo(f"{writer.writer}: {writer.records} records, signed to {writer.signed}{last}")
        for note in writer.notes:
            typer.echo(f"  note: {output.printable(note)}")
    for finding in report.findings:
        typer.echo(f"{typer.style('BAD', fg='red', bold=True)} {output.printable(str(finding))}")
    if report.whole:
        typer.echo(typer.style("The trail is whole.", fg="green"))

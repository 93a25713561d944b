"""Parse OAuth parameters from raw bytes: a form (RFC 6749, B) or a JSON object.

By hand, because the usual parsers keep one of two values, decode what is malformed, and stop
at nothing. Each name keeps all the values it was given, in order.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from broker import strict_json
from broker.token_request import PARAMETERS

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"

_MOST_FIELDS: Final = 100
_DEEPEST_JSON: Final = 8
_FORM_TEXT: Final = re.compile(rb"[\x21-\x24\x26-\x7e]*(?:%[0-9A-Fa-f]{2}[\x21-\x24\x26-\x7e]*)*")
_CONTENT_TYPE: Final = re.compile(
    rb"(application/x-www-form-urlencoded|application/json)"
    rb"(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?",
    re.IGNORECASE,
)

SDK_NAMES: Final = {
    "service_account_id": "client_id",
    "federation_rule_id": "scope",
    "identity_provider_id": "scope",
}
"""Where the workload-identity clients of Anthropic's and OpenAI's SDKs, whose JSON has no
`scope` and no `client_id`, carry what they mean: the name of the agent, and the scopes."""


class Unparsable(ValueError):
    """A body that is not what its content type says; the text quotes nothing of it."""


def media_type(content_type: bytes) -> str | None:
    """Return `FORM` or `JSON`, or None for any other content type or charset."""
    match = _CONTENT_TYPE.fullmatch(content_type)
    return match[1].decode().lower() if match else None


def parse(media: str, body: bytes) -> dict[str, list[str]]:
    """Return the parameters of a body of this media type; raises `Unparsable`."""
    return _parse_form(body) if media == FORM else _parse_json(body)


def _parse_form(body: bytes) -> dict[str, list[str]]:
    if body.count(b"&") >= _MOST_FIELDS:
        raise Unparsable(f"the form has more than {_MOST_FIELDS} fields")
    parameters: dict[str, list[str]] = {}
    for field in body.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            parameters.setdefault(_decode(name), []).append(_decode(value))
    return parameters


def _decode(encoded: bytes) -> str:
    if not _FORM_TEXT.fullmatch(encoded):
        raise Unparsable("the form holds a byte that must be percent-encoded, or a stray percent")
    try:
        return unquote_to_bytes(encoded.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise Unparsable("the form is not UTF-8") from None


def _parse_json(body: bytes) -> dict[str, list[str]]:
    try:
        document = strict_json.loads(body, max_depth=_DEEPEST_JSON)
    except strict_json.NotStrictJson as error:
        raise Unparsable(f"the body is not acceptable JSON: {error}") from None
    if not isinstance(document, dict):
        raise Unparsable("the body must be a JSON object")
    if len(document) > _MOST_FIELDS:
        raise Unparsable(f"the object has more than {_MOST_FIELDS} members")
    parameters = {name: _values(name, value) for name, value in document.items()}
    for theirs, ours in SDK_NAMES.items():
        if theirs in parameters and not parameters.get(ours):
            parameters[ours] = parameters[theirs]
    return parameters


def _values(name: str, value: Any) -> list[str]:
    """Return a member's value as parameter values; of no interest for an unknown member."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if value is not None and (name in PARAMETERS or name in SDK_NAMES):
        raise Unparsable(f"member {name} must be a string")
    return []

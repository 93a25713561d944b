"""Parse JSON that a stranger wrote: one meaning, or none.

`json` keeps the last of two members with the same name, makes an infinity of 1e400 and a
half character of a lone surrogate; two parsers that differ on such input can be played off
against each other. Here they are refused (RFC 8259, 4 and 8.2; RFC 7493).
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGER_DIGITS: Final = 20
"""Enough for any 64-bit integer with its sign; the time to convert more grows by the square."""

_DECIMAL_DIGITS: Final = 40

_TOO_DEEP: Final = "arrays and objects are nested too deeply"


class NotStrictJson(ValueError):
    """Input that is not JSON, or is JSON with more than one reading.

    The text says what is wrong and never quotes the input, which may hold a secret.
    """


def loads(data: bytes, *, max_depth: int = 16, exact: bool = False) -> Any:
    """Return the value that UTF-8 `data` holds.

    With `exact`, a number with a fraction or an exponent is the `Decimal` that is written.
    Raise `NotStrictJson` for anything but one JSON value; for a member named twice in one
    object, an integer of over 20 digits, a number that is not finite, a lone surrogate, or
    arrays and objects nested deeper than `max_depth`. The caller caps the size.
    """
    try:
        value = (_EXACT if exact else _DECODER).decode(data.decode())
    except UnicodeDecodeError:
        raise NotStrictJson("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise NotStrictJson(f"{error.msg} at character {error.pos}") from None
    except RecursionError:
        raise NotStrictJson(_TOO_DEEP) from None
    # The walk is for the rare input alone: without this many brackets nothing is nested too
    # deeply, and without an escape there is no lone surrogate, for UTF-8 cannot encode one.
    if data.count(b"{") + data.count(b"[") > max_depth or b"\\u" in data:
        _walk(value, max_depth)
    return value


def _walk(value: Any, depth_left: int) -> None:
    if isinstance(value, str):
        _require_characters(value)
    elif isinstance(value, dict | list):
        if depth_left == 0:
            raise NotStrictJson(_TOO_DEEP)
        if isinstance(value, dict):
            for name in value:
                _require_characters(name)
            value = value.values()
        for inner in value:
            _walk(inner, depth_left - 1)


def _require_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotStrictJson("a string holds half a surrogate pair") from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        raise NotStrictJson("an object names a member twice")
    return value


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS:
        raise NotStrictJson(f"an integer has more than {_INTEGER_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise NotStrictJson("a number is too large")
    return value


def _decimal(digits: str) -> Decimal:
    _float(digits)
    if len(digits) > _DECIMAL_DIGITS:
        raise NotStrictJson(f"a number has more than {_DECIMAL_DIGITS} digits")
    try:
        return Decimal(digits)
    except InvalidOperation:  # as for 1e-99999999999999999999, which is 0.0 as a float
        raise NotStrictJson("the exponent of a number is too large") from None


def _constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not a JSON number")


def _decoder(parse_float: Callable[[str], object]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_object,
        parse_int=_integer,
        parse_float=parse_float,
        parse_constant=_constant,
    )


_DECODER: Final = _decoder(_float)
_EXACT: Final = _decoder(_decimal)

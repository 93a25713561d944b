"""Read plain YAML scalars so that every YAML reader would read them the same.

YAML 1.1 takes `no` for false, `0777` for 511, `12:30` for 750 and `2024-06-20` for a date;
YAML 1.2 does not, and takes `1e3` for a number where 1.1 readers see text. An identifier
that changes its type with the reader is no base for trust, so whatever the two versions
disagree on is refused with advice to quote it. What remains is what JSON has.
"""

from __future__ import annotations

import re
from typing import Final

import yaml

Scalar = str | int | float | bool | None

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+", re.ASCII)
_LARGEST_EXACT: Final = 2**53 - 1  # RFC 7493, 2.2
_MOST_DIGITS: Final = 17

_CORE_1_2: Final = (  # YAML 1.2.2, 10.3.2
    ("null", re.compile(r"null|Null|NULL|~|")),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)),
    (
        "float",
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            re.ASCII,
        ),
    ),
)
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_RESOLVERS_1_1: Final = yaml.SafeLoader.yaml_implicit_resolvers
_SINGLE_LETTER_BOOLS: Final = frozenset("yYnN")  # in YAML 1.1, though not in PyYAML


def plain_scalar(text: str) -> Scalar:
    """Return what an unquoted scalar stands for.

    Raises:
        ValueError: when YAML readers disagree about it, or it has no exact JSON value.
    """
    kind = _kind_1_2(text)
    if kind != _kind_1_1(text) or text in _SINGLE_LETTER_BOOLS:
        raise ValueError(
            f"YAML readers disagree on what {_named(text)} is: put it in quotes if it is text, "
            "or write it as JSON would"
        )
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    return _number(text)


def _named(text: str) -> str:
    # Digits could be a secret in the wrong place; words such as `no` could not.
    return repr(text) if text.isalpha() else "this value"


def _number(text: str) -> int | float:
    digits = len(text) <= _MOST_DIGITS
    if digits and _INTEGER.fullmatch(text) and abs(int(text)) <= _LARGEST_EXACT:
        return int(text)
    if digits and _DECIMAL.fullmatch(text):
        return float(text)
    raise ValueError(
        "a number that JSON does not know or cannot hold exactly: put it in quotes if it is "
        "text, or write it as JSON would"
    )


def _kind_1_2(text: str) -> str:
    return next((kind for kind, form in _CORE_1_2 if form.fullmatch(text)), "str")


def _kind_1_1(text: str) -> str:
    for tag, form in _RESOLVERS_1_1.get(text[:1], ()):
        if form.match(text):
            return str(tag).removeprefix(_TAG_PREFIX)
    return "str"

"""Values that have the shape that policy gives them: objects, lists and scalars at will.

`tf` has no type for them. Terraform has: `dynamic`, on the wire a pair of a type, as JSON, and a
value (the object wire format of plugin protocol 6); in a state file, an object with both.
"""

from __future__ import annotations

import json
from typing import Any, Final

from msgpack.ext import ExtType
from tf.types import TfType, Unknown

_PAIR: Final = 2


class Dynamic(TfType):
    """Any value of JSON. Members that are null count as absent, as everywhere in Terraform."""

    def encode(self, value: Any) -> Any:
        """Return the pair of type and value (`tf.types.TfType`)."""
        if value is None or is_unknown(value):
            return value
        return [json.dumps(_type_of(value)).encode(), value]

    def decode(self, value: Any) -> Any:
        """Return the value (`tf.types.TfType`)."""
        if value is None or is_unknown(value):
            return value
        return value[1]

    def semantically_equal(self, a_decoded: Any, b_decoded: Any) -> bool:
        """Say whether both mean the same (`tf.types.TfType`)."""
        return _canonical(a_decoded) == _canonical(b_decoded)

    def tf_type(self) -> bytes:
        """Return Terraform's name of the type."""
        return b'"dynamic"'


def is_unknown(value: Any) -> bool:
    """Say whether a value is not known yet; Terraform may say what little it knows of it."""
    return value is Unknown or isinstance(value, ExtType)


def holds_unknown(value: Any) -> bool:
    """Say whether anything within a value is not known yet."""
    if isinstance(value, dict):
        return any(map(holds_unknown, value.values()))
    if isinstance(value, list):
        return any(map(holds_unknown, value))
    return is_unknown(value)


def without_nulls(value: Any) -> Any:
    """Return a value without the members of objects that are null."""
    if isinstance(value, dict):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def from_state_file(value: Any) -> Any:
    """Return the pair of type and value that a state file holds as an object."""
    if isinstance(value, dict) and len(value) == _PAIR and {"type", "value"} == value.keys():
        return [json.dumps(value["type"]).encode(), value["value"]]
    return value


def _type_of(value: Any) -> Any:
    if value is None or is_unknown(value):
        return "dynamic"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return ["tuple", [_type_of(one) for one in value]]
    return ["object", {name: _type_of(one) for name, one in value.items()}]


def _canonical(value: Any) -> str:
    """Return a text that is the same for values that mean the same: types tell, order does not."""
    meant = without_nulls(value) or None  # an object that says nothing is as good as none
    return json.dumps(_exact(meant), sort_keys=True, default=_unknown)


def _unknown(value: Any) -> Any:
    return {"\0unknown": repr(value)}  # no value of JSON that Terraform could hold


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _exact(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_exact(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # Terraform has one kind of number
    return value

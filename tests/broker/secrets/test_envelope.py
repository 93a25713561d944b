from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigurationError
from broker.keys.sealing import MasterKey
from broker.secrets.envelope import Envelopes, Sealed

ENVELOPES = Envelopes(MasterKey(b"\x05" * 32))

names = st.from_regex(r"\A[a-z0-9][a-z0-9._/-]{0,9}\Z")
versions = st.integers(1, 10**9)


@given(names, versions, st.binary(min_size=1, max_size=100))
def test_what_is_sealed_is_opened(name: str, version: int, value: bytes) -> None:
    sealed = ENVELOPES.seal(name, version, value)
    assert ENVELOPES.open(name, version, sealed) == value
    assert ENVELOPES.seal(name, version, value).value != sealed.value


@given(names, versions, names, versions)
def test_another_name_or_version_is_refused(
    name: str, version: int, other_name: str, other_version: int
) -> None:
    sealed = ENVELOPES.seal(name, version, b"value")
    if (name, version) != (other_name, other_version):
        with pytest.raises(ConfigurationError, match="damaged or was altered"):
            ENVELOPES.open(other_name, other_version, sealed)


@given(st.data())
def test_any_bit_flipped_is_refused(data: st.DataObject) -> None:
    sealed = ENVELOPES.seal("a", 1, b"value")
    parts = [bytearray(sealed.key), bytearray(sealed.value)]
    part = data.draw(st.sampled_from(parts))
    bit = data.draw(st.integers(0, len(part) * 8 - 1))
    part[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ConfigurationError, match="damaged or was altered"):
        ENVELOPES.open("a", 1, Sealed(bytes(parts[0]), bytes(parts[1])))


def test_values_have_keys_of_their_own() -> None:
    one, two = (ENVELOPES.seal("a", 1, b"value") for _ in range(2))
    with pytest.raises(ConfigurationError, match="damaged or was altered"):
        ENVELOPES.open("a", 1, Sealed(one.key, two.value))


def test_the_check_knows_its_master_key() -> None:
    ENVELOPES.check(ENVELOPES.new_check())
    with pytest.raises(ConfigurationError, match="wrong master key"):
        ENVELOPES.check(Envelopes(MasterKey(b"\x06" * 32)).new_check())

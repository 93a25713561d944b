from __future__ import annotations

import pytest

from broker.errors import ConfigurationError
from broker.policy.references import check_kept_reference, check_reference, is_kept


@pytest.mark.parametrize(
    "reference", ["vault:kv/stripe#key", "embedded:stripe", "env:STRIPE_KEY", "file:/run/key"]
)
def test_knows_the_schemes(reference: str) -> None:
    check_reference(reference)


@pytest.mark.parametrize(
    "reference", ["sk_live_4242", "", ":", "vault:", "vault", "Vault:kv", "https://sk_live_4242"]
)
def test_refuses_all_else_without_repeating_it(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="not a secret reference") as refusal:
        check_reference(reference)
    assert "4242" not in str(refusal.value)
    assert "embedded:<name>" in str(refusal.value)


def test_names_the_nearest_scheme() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'embedded'"):
        check_reference("embeded:stripe")


def test_what_programs_set_refers_to_no_file_and_no_variable() -> None:
    for reference in ("vault:kv/stripe#key", "embedded:stripe"):
        check_kept_reference(reference)
    for reference in ("env:BROKER_MASTER_KEY", "file:/run/key"):
        with pytest.raises(ConfigurationError, match="policy files alone") as refusal:
            check_kept_reference(reference)
        assert reference not in str(refusal.value)


def test_what_programs_set_is_known_by_its_place() -> None:
    assert is_kept("api:services/stripe")
    assert not is_kept("/etc/broker/policies/api.yaml")
    assert not is_kept("policies/api:x.yaml")

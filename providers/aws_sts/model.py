"""What the models of this provider share: how they are read, and what AWS calls its places."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict

REGION: Final = r"^[a-z]{2,4}(?:-[a-z]{2,12}){1,3}-[1-9][0-9]?$"
"""What a region's name looks like, so that none can be a host or a path."""

_TOP: Final = r"6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5])))"
_PORT: Final = rf"(?:[1-9][0-9]{{0,3}}|[1-5][0-9]{{4}}|{_TOP})"
ENDPOINT: Final = rf"^https?://(?:[a-z0-9](?:[a-z0-9.-]{{0,252}}[a-z0-9])?)(?::{_PORT})?$"
"""What an endpoint looks like that the policy names itself: an origin, without a path."""

_PARTITIONS: Final = (
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
    ("", "aws", "amazonaws.com"),
)


class Model(BaseModel):
    """A part of a policy: it takes no unknown field, and does not change."""

    # A secret pasted into a policy must not come back in the error text.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def partition_of(region: str) -> str:
    """Return the partition of a region, as it stands in ARNs."""
    return _place(region)[0]


def domain_of(region: str) -> str:
    """Return the domain under which a region's endpoints are."""
    return _place(region)[1]


def _place(region: str) -> tuple[str, str]:
    return next(
        (partition, domain)
        for prefix, partition, domain in _PARTITIONS
        if region.startswith(prefix)
    )

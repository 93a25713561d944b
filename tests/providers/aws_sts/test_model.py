"""What AWS calls its places, held against what its SDK knows of them."""

from __future__ import annotations

import re

import botocore.session
import pytest

from providers.aws_sts.model import ENDPOINT, REGION, domain_of, partition_of


def test_every_region_is_in_its_partition_and_under_its_domain() -> None:
    partitions = botocore.session.Session().get_data("endpoints")["partitions"]
    for partition in partitions:
        for region in partition["regions"]:
            assert re.search(REGION, region)
            assert partition_of(region) == partition["partition"]
            assert domain_of(region) == partition["dnsSuffix"]


@pytest.mark.parametrize(
    "text",
    [
        "https://user@sts.internal",
        "https://sts.internal/path",
        "https://sts.internal?x",
        "https://sts.internal#x",
        "https://sts.internal:0",
        "https://-sts",
        "https://STS.internal",
        "ftp://sts.internal",
        "https://sts.internal\n",
        "//sts.internal",
    ],
)
def test_an_endpoint_is_an_origin_and_nothing_else(text: str) -> None:
    assert not re.fullmatch(ENDPOINT.removeprefix("^").removesuffix("$"), text)

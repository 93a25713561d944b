"""T5: what would make an AWS call say something else is denied before anything is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import CredentialRefused, CredentialUnavailable, PolicyError
from broker.policy.loader import Document, load_policy
from tests.fakes.aws_bench import EXPIRATION, POLICY, use_aws
from tests.fakes.sts import answering

if TYPE_CHECKING:
    from tests.fakes.lease_bench import LeaseBench

HARMLESS: Final = {"branch": "main", "repository": "acme/app"}


async def ask(bench: LeaseBench, **changes: Any) -> None:
    grant: dict[str, Any] = {"scopes": ("s3.read",), "claims": HARMLESS}
    await bench.mint("s3.read", **grant | changes)


@pytest.mark.parametrize(
    "region",
    [
        "evil.com/#",
        "evil.com/?",
        "eu-west-1.evil.com",
        "eu-west-1@evil.com",
        "eu-west-1:8443",
        "eu-west-1/",
        "eu-west-1#",
        "eu-west-1\\r\\nHost: evil.com",
        "eu-west-1\\n",
        " eu-west-1",
        "{agent}",
        "eu-w\\u0435st-1",
        "..",
        "",
    ],
)
def test_t5_a_region_that_is_none_never_gets_into_a_policy(region: str) -> None:
    text = POLICY.format(url="https://sts.test").replace("region: eu-west-1", f'region: "{region}"')
    with pytest.raises(PolicyError, match="region"):
        load_policy([Document("policy.yaml", text)])


async def test_t5_what_is_harmless_is_signed_and_sent(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(expiration=EXPIRATION) as sts:
        use_aws(lease_bench, sts.url, monkeypatch)
        await ask(lease_bench)
    assert sts.policy()["Statement"][0]["Resource"] == ["arn:aws:s3:::art/coder/main/*"]
    assert sts.only()["Tags.member.1.Value"] == "acme/app"


@pytest.mark.parametrize("claim", ["branch", "repository"])
@pytest.mark.parametrize(
    "value",
    [
        "*",
        "?",
        "main*",
        "${aws:username}",
        "$",
        "{agent}",
        "}",
        "..",
        "a/../../other",
        'main"],"Resource":["*',
        "main\r\n",
        "main\x00",
        "main,*",
        "m\u0430in",
        "",
        "x" * 300,
        ["main"],
        True,
        None,
    ],
)
async def test_t5_a_template_value_that_could_widen_the_policy_is_denied(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch, claim: str, value: object
) -> None:
    with answering(expiration=EXPIRATION) as sts:
        use_aws(lease_bench, sts.url, monkeypatch)
        with pytest.raises(CredentialRefused) as caught:
            await ask(lease_bench, claims=HARMLESS | {claim: value})
    assert caught.value.rule == "template"
    assert not sts.calls
    assert lease_bench.records()[-1]["decision"] == "deny"


@pytest.mark.parametrize("value", ["other/*", "other/secret", "a:b"])
async def test_t5_a_resource_takes_no_value_that_reaches_into_another_path(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    with answering(expiration=EXPIRATION) as sts:
        use_aws(lease_bench, sts.url, monkeypatch)
        with pytest.raises(CredentialRefused):
            await ask(lease_bench, claims=HARMLESS | {"branch": value})
    assert not sts.calls


@pytest.mark.parametrize("task", ["a\r\nb", "a\nb", "\x00", "a\x1b[2Jb", "a\u2028b", "a\u202eb"])
async def test_t5_a_session_name_takes_no_control_character(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    with answering(expiration=EXPIRATION) as sts:
        use_aws(lease_bench, sts.url, monkeypatch)
        with pytest.raises(CredentialUnavailable, match="control character"):
            await ask(lease_bench, task=task)
    assert not sts.calls
    assert (await lease_bench.only()).state == "revoked"  # there is nothing to end


@pytest.mark.parametrize("jti", ["a\r\nX: y", "x" * 65, "a b", "grant*"])
async def test_t5_a_source_identity_is_one_that_aws_takes(
    lease_bench: LeaseBench, monkeypatch: pytest.MonkeyPatch, jti: str
) -> None:
    with answering(expiration=EXPIRATION) as sts:
        use_aws(lease_bench, sts.url, monkeypatch)
        with pytest.raises(CredentialUnavailable, match="source identity"):
            await ask(lease_bench, jti=jti)
    assert not sts.calls

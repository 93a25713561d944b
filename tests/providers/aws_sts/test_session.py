"""Sessions from a real server that checks signatures, trust and role policies."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from broker.app.logs import configure_logging
from providers.aws_sts import PLUGIN
from providers.aws_sts.session import session_name
from providers.base import (
    CredentialRequest,
    Dependencies,
    Mints,
    Presents,
    Provider,
    ProviderError,
    Renewable,
    Reserves,
    Revocable,
    Secret,
)
from providers.signing import Outgoing, Unsignable
from tests.components.moto import ACCOUNT, REGION, AccessKey
from tests.components.process import free_port
from tests.fakes.sts import answering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from providers.base import Minted
    from tests.components.moto import Moto, User

GRANT: Final = "Zx3_q-0123456789abcdef"
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/agent-task"
READ: Final = {
    "session_policy": [
        {"effect": "Allow", "actions": ["s3:GetObject"], "resources": ["arn:aws:s3:::art/*"]}
    ]
}
NOW: Final = 1_750_000_000.0


class Stored:
    """Secrets by reference, as a backend holds them."""

    def __init__(self, **values: str) -> None:
        self.values = values

    async def read(self, reference: str) -> Secret:
        return Secret(self.values[reference.removeprefix("embedded:")].encode())


def provider(
    url: str,
    stored: Stored | None = None,
    *,
    vouch: Callable[[str], Secret] | None = None,
    **fields: Any,
) -> Provider:
    service = {
        "role_arn": ROLE,
        "region": REGION,
        "endpoint_url": url,
        "insecure_http": True,
        "credentials": {
            "type": "keys",
            "access_key_id": "embedded:id",
            "secret_access_key": "embedded:secret",
        },
    }
    config = PLUGIN.service_model.model_validate(service | fields)
    secrets = stored or Stored(id="AKIAEXAMPLE", secret="sk-of-the-broker")
    return PLUGIN.build(config, Dependencies(secrets, lambda: None, lambda: NOW, vouch=vouch))


def request(scope: Mapping[str, Any] = READ, **fields: Any) -> CredentialRequest:
    known: dict[str, Any] = {
        "service": "aws-prod",
        "agent": "release-bot",
        "grant": GRANT,
        "scope": "artifacts.read",
        "task": "build-7",
        "lifetime": 1800,
        "constraints": PLUGIN.scope_model.model_validate(dict(scope)),
    }
    return CredentialRequest(**known | fields)


async def mint(made: Provider, asked: CredentialRequest | None = None) -> Minted:
    assert isinstance(made, Mints)
    return await made.mint(asked or request())


async def refusal(made: Provider, asked: CredentialRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await mint(made, asked)
    error = caught.value
    assert error.__context__ is None or error.__suppress_context__  # whose text is the SDK's
    return error


def key(minted: Minted) -> AccessKey:
    parts = [
        minted.fields[name].reveal().decode()
        for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
    ]
    return AccessKey(*parts)


def stored(user: User) -> Stored:
    return Stored(id=user.key.id, secret=user.key.secret)


class TestAgainstMoto:
    async def test_a_session_does_what_its_role_may_and_nothing_else(self, moto: Moto) -> None:
        bucket = moto.bucket(**{"release.txt": "v1"})
        caller = moto.user("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession")
        role = moto.role(
            caller.arn,
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            },
        )
        made = provider(moto.url, stored(caller), role_arn=role)
        session = moto.s3(key(await mint(made)))
        assert session.get_object(Bucket=bucket, Key="release.txt")["Body"].read() == b"v1"
        with pytest.raises(ClientError, match="AccessDenied"):
            session.put_object(Bucket=bucket, Key="release.txt", Body=b"v2")
        with pytest.raises(ClientError, match="AccessDenied"):
            moto.iam(key(await mint(made))).list_users()

    async def test_the_session_is_named_after_agent_and_task(self, moto: Moto) -> None:
        caller = moto.user("sts:*")
        role = moto.role(
            caller.arn, {"Effect": "Allow", "Action": ["sts:GetCallerIdentity"], "Resource": "*"}
        )
        minted = await mint(provider(moto.url, stored(caller), role_arn=role))
        identity = moto.sts(key(minted)).get_caller_identity()
        name = role.rpartition("/")[2]
        assert identity["Arn"] == (
            f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/release-bot@build-7"
        )

    async def test_a_wrong_secret_is_refused_as_the_brokers_own_fault(self, moto: Moto) -> None:
        caller = moto.user("sts:*")
        wrong = Stored(id=caller.key.id, secret="not-the-secret-of-this-key")
        made = provider(moto.url, wrong, role_arn=moto.role(caller.arn))
        error = await refusal(made)
        assert (error.code, error.retryable) == ("SignatureDoesNotMatch", False)
        assert "the broker's own AWS credentials" in str(error)

    async def test_a_rotated_key_is_used_at_once(self, moto: Moto) -> None:
        caller = moto.user("sts:*")
        secrets = Stored(id=caller.key.id, secret="the-old-secret")
        made = provider(moto.url, secrets, role_arn=moto.role(caller.arn))
        await refusal(made)
        secrets.values["secret"] = caller.key.secret
        assert (await mint(made)).fields["SessionToken"].reveal()

    async def test_a_role_that_trusts_somebody_else_is_not_assumed(self, moto: Moto) -> None:
        stranger = moto.user("sts:*")
        role = moto.role(f"arn:aws:iam::{ACCOUNT}:user/somebody-else")
        error = await refusal(provider(moto.url, stored(stranger), role_arn=role))
        assert error.code == "AccessDenied"
        assert "sts:SetSourceIdentity" in str(error)

    async def test_the_default_chain_reads_the_environment(
        self, moto: Moto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caller = moto.user("sts:*")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", caller.key.id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", caller.key.secret)
        made = provider(moto.url, role_arn=moto.role(caller.arn), credentials={"type": "default"})
        assert key(await mint(made)).token


class TestWhatIsSent:
    async def test_everything_that_narrows_the_session_is_in_the_call(self) -> None:
        scope = READ | {
            "policy_arns": [f"arn:aws:iam::{ACCOUNT}:policy/task-ceiling"],
            "session_tags": {"agent": "release-bot", "team": "acme/app"},
            "transitive_tags": ["team"],
        }
        with answering() as sts:
            await mint(provider(sts.url, external_id="acme-42"), request(scope))
        assert sts.only() == {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": ROLE,
            "RoleSessionName": "release-bot@build-7",
            "SourceIdentity": GRANT,
            "ExternalId": "acme-42",
            "DurationSeconds": "1800",
            "Policy": '{"Version":"2012-10-17","Statement":[{"Effect":"Allow",'
            '"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::art/*"]}]}',
            "PolicyArns.member.1.arn": f"arn:aws:iam::{ACCOUNT}:policy/task-ceiling",
            "Tags.member.1.Key": "agent",
            "Tags.member.1.Value": "release-bot",
            "Tags.member.2.Key": "team",
            "Tags.member.2.Value": "acme/app",
            "TransitiveTagKeys.member.1": "team",
        }

    async def test_the_whole_role_is_asked_for_without_a_policy(self) -> None:
        with answering() as sts:
            await mint(provider(sts.url), request({"full_role": True}))
        assert "Policy" not in sts.only()

    @pytest.mark.parametrize(
        ("lifetime", "max_session", "sent"),
        [
            (1800, "1h", 1800),
            (86_400, "1h", 3600),
            (86_400, "12h", 43_200),
            (900, "1h", 900),
            (1, "1h", 900),
        ],
    )
    async def test_a_session_lives_as_long_as_grant_and_role_let_it(
        self, lifetime: int, max_session: str, sent: int
    ) -> None:
        with answering() as sts:
            await mint(provider(sts.url, max_session=max_session), request(lifetime=lifetime))
        assert sts.only()["DurationSeconds"] == str(sent)

    async def test_a_session_opened_by_a_session_lives_an_hour_at_most(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
        with answering() as sts:
            made = provider(sts.url, max_session="12h", credentials={"type": "default"})
            await mint(made, request(lifetime=86_400))
        assert sts.only()["DurationSeconds"] == "3600"

    @pytest.mark.parametrize(
        "scope", [READ, {"full_role": True}, {"policy_arns": [f"arn:aws:iam::{ACCOUNT}:policy/p"]}]
    )
    async def test_a_session_that_outlives_its_grant_may_do_nothing_after_it(
        self, scope: dict[str, Any]
    ) -> None:
        with answering() as sts:
            await mint(provider(sts.url), request(scope, lifetime=60))
        assert sts.policy()["Statement"][-1] == {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": "2025-06-15T15:07:40Z"}},
        }

    async def test_no_proxy_or_endpoint_of_the_environment_is_used(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        for name in ("HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"):
            monkeypatch.setenv(name, nowhere)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with answering() as sts:
            await mint(provider(sts.url))
        assert sts.only()["RoleArn"] == ROLE


class TestAnswers:
    async def test_a_session_has_its_three_parts_and_its_end(self) -> None:
        with answering() as sts:
            minted = await mint(provider(sts.url))
        assert {name: one.reveal() for name, one in minted.fields.items()} == {
            "AccessKeyId": b"ASIAMINTED",
            "SecretAccessKey": b"minted-secret",
            "SessionToken": b"minted-token",
        }
        assert minted.expires_at == 1_893_456_000.0
        assert not minted.renewable

    async def test_too_much_policy_is_told_in_percent(self) -> None:
        text = "Packed size of session tags consumes 107% of allotted space for sk-secret"
        with answering(400, "PackedPolicyTooLarge", text) as sts:
            error = await refusal(provider(sts.url))
        assert "107%" in str(error)
        assert "PackedPolicySize" in str(error)
        assert "sk-secret" not in str(error)

    async def test_a_policy_that_is_nearly_full_is_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with answering(packed=93) as sts:
            await mint(provider(sts.url))
        assert "scope artifacts.read uses 93%" in caplog.text

    @pytest.mark.parametrize(
        ("status", "code", "retryable"),
        [
            (400, "Throttling", True),
            (503, "ServiceUnavailable", True),
            (500, "Whatever", True),
            (403, "RegionDisabledException", False),
            (400, "MalformedPolicyDocument", False),
            (400, "ValidationError", False),
            (403, "ExpiredToken", False),
            (403, "Unheard.Of", False),
        ],
    )
    async def test_what_aws_says_is_told_by_its_code_alone(
        self, status: int, code: str, *, retryable: bool
    ) -> None:
        with answering(status, code, "cannot do this with wJalrXUtnFEMI") as sts:
            error = await refusal(provider(sts.url))
        assert (error.code, error.retryable) == (code, retryable)
        assert error.untouched == (code != "Throttling" and status < 500)
        assert str(error).startswith(f"AWS STS refused ({code})")
        assert "wJalrXUtnFEMI" not in str(error)

    async def test_a_code_that_is_none_is_not_repeated(self) -> None:
        with answering(400, "not a code\nat all", "no") as sts:
            error = await refusal(provider(sts.url))
        assert error.code == "unknown"

    async def test_a_session_under_another_name_is_not_handed_out(self) -> None:
        with answering(source_identity="somebody-else") as sts:
            error = await refusal(provider(sts.url))
        assert not error.untouched  # so that its lease is kept until it has expired

    async def test_an_answer_without_a_session_is_refused(self) -> None:
        with answering(body="<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>") as sts:
            error = await refusal(provider(sts.url))
        assert "without a session" in str(error)
        assert not error.untouched

    @pytest.mark.parametrize("body", ["<html>sign in</html>", "{{}}", "<a", "sk-secret"])
    async def test_an_answer_that_is_none_of_sts_is_not_repeated(self, body: str) -> None:
        with answering(body=body) as sts:
            error = await refusal(provider(sts.url))
        assert error.retryable
        assert "sk-secret" not in str(error)

    async def test_an_sts_that_is_down_may_be_asked_again(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        error = await refusal(provider(url))
        assert error.retryable
        assert url in str(error)

    async def test_an_endless_wait_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("providers.aws_sts.session.READ_TIMEOUT", 0.2)
        with answering(hold=threading.Event()) as sts:
            error = await refusal(provider(sts.url))
        assert error.retryable


class TestTheBrokersOwnCredentials:
    async def test_none_at_all_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        with answering() as sts:
            error = await refusal(provider(sts.url, credentials={"type": "default"}))
        assert "no AWS credentials of its own (NoCredentialsError)" in str(error)
        assert not sts.calls

    async def test_a_web_identity_opens_the_brokers_own_session_first(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("header.payload.signature")
        own = f"arn:aws:iam::{ACCOUNT}:role/broker"
        identity = {"type": "web_identity", "role_arn": own, "token_file": str(token)}
        with answering() as sts:
            made = provider(sts.url, max_session="12h", credentials=identity)
            await mint(made, request(lifetime=86_400))
            await mint(made)
        first, second, third = sts.calls
        assert (first["Action"], first["RoleArn"]) == ("AssumeRoleWithWebIdentity", own)
        assert first["WebIdentityToken"] == "header.payload.signature"
        assert (second["Action"], second["RoleArn"]) == ("AssumeRole", ROLE)
        assert second["DurationSeconds"] == "3600"  # one session has opened the other
        assert third["Action"] == "AssumeRole"

    async def test_a_web_identity_that_is_refused_is_told_by_its_code_alone(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = tmp_path / "token"
        token.write_text("header.payload.signature")
        identity = {"type": "web_identity", "role_arn": ROLE, "token_file": str(token)}
        with answering(400, "InvalidIdentityToken", "header.payload is no good") as sts:
            error = await refusal(provider(sts.url, credentials=identity))
        assert error.code == "InvalidIdentityToken"
        assert "header.payload" not in str(error) + caplog.text

    async def test_the_broker_can_vouch_for_itself(self) -> None:
        own = f"arn:aws:iam::{ACCOUNT}:role/broker"
        asked: list[str] = []

        def vouch(audience: str) -> Secret:
            asked.append(audience)
            return Secret(b"token-%d" % len(asked))

        identity = {"type": "broker_identity", "role_arn": own}
        with answering() as sts:
            await mint(provider(sts.url, vouch=vouch, credentials=identity))
        first, second = sts.calls
        assert (first["Action"], first["RoleArn"]) == ("AssumeRoleWithWebIdentity", own)
        assert first["WebIdentityToken"] == "token-1"
        assert (second["Action"], second["RoleArn"]) == ("AssumeRole", ROLE)
        assert asked == ["sts.amazonaws.com"]

    async def test_a_token_that_aws_does_not_take_is_told_with_what_it_wants(self) -> None:
        own = {"type": "broker_identity", "role_arn": ROLE}
        with answering(400, "InvalidIdentityToken", "no provider for token-1") as sts:
            made = provider(sts.url, vouch=lambda _: Secret(b"token-1"), credentials=own)
            error = await refusal(made)
        assert "must be an OpenID provider of the account" in str(error)
        assert "token-1" not in str(error)

    async def test_where_nothing_vouches_for_the_broker_that_is_said(self) -> None:
        own = {"type": "broker_identity", "role_arn": ROLE}
        with answering() as sts:
            error = await refusal(provider(sts.url, credentials=own))
        assert "nothing here makes tokens about the broker" in str(error)
        assert not sts.calls

    async def test_a_token_file_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        identity = {
            "type": "web_identity",
            "role_arn": ROLE,
            "token_file": str(tmp_path / "absent"),
        }
        with answering() as sts:
            error = await refusal(provider(sts.url, credentials=identity))
        assert "no AWS credentials of its own" in str(error)

    @pytest.mark.parametrize("value", ["", "secret\n", "sec ret", "a\r\nHost: evil"])
    async def test_a_key_that_can_be_none_is_not_sent(self, value: str) -> None:
        with answering() as sts:
            error = await refusal(provider(sts.url, Stored(id="AKIAEXAMPLE", secret=value)))
        assert "line break" in str(error)
        assert not sts.calls

    def test_the_policy_names_its_secrets(self) -> None:
        config = PLUGIN.service_model.model_validate(
            {
                "role_arn": ROLE,
                "region": REGION,
                "credentials": {
                    "type": "keys",
                    "access_key_id": "vault:kv/aws#id",
                    "secret_access_key": "vault:kv/aws#secret",
                },
            }
        )
        assert PLUGIN.secret_references(config) == ("vault:kv/aws#id", "vault:kv/aws#secret")


async def test_debug_logs_show_no_session(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configure_logging("debug")
    try:
        with answering() as sts:
            await mint(provider(sts.url))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    printed = "".join(capfd.readouterr())
    for secret in ("minted-secret", "minted-token", "sk-of-the-broker"):
        assert secret not in printed


def test_a_policy_is_loaded_without_the_sdk() -> None:
    code = "import sys, providers.aws_sts; assert not {'boto3', 'botocore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sessions_can_be_neither_revoked_nor_renewed() -> None:
    made = provider("http://127.0.0.1:1")
    assert not isinstance(made, Revocable | Renewable | Reserves)
    assert PLUGIN.least_lifetime == 900
    assert PLUGIN.deliveries == {"credential", "proxy"}


class TestPresent:
    API: Final = {"service": "s3"}

    async def test_what_was_minted_signs_and_does_not_travel(self) -> None:
        with answering() as sts:
            made = provider(sts.url, api=self.API)
            minted = await mint(made)
        assert isinstance(made, Presents)
        injection = made.present(minted, request())
        assert (injection.headers, injection.query, injection.cookies) == ((), (), ())
        assert [one.reveal() for one in injection.secrets] == [b"minted-secret", b"minted-token"]
        assert injection.signer is not None
        asked = Outgoing(b"GET", b"/art/x", None, b"s3.eu-west-1.amazonaws.com")
        headers = dict(injection.signer.sign(asked).headers)
        assert b"ASIAMINTED/20250615/eu-west-1/s3/" in headers[b"authorization"]
        assert headers[b"x-amz-security-token"] == b"minted-token"
        told = repr((injection, minted))
        assert "minted-secret" not in told
        assert "minted-token" not in told

    async def test_a_scope_says_whether_requests_may_copy(self) -> None:
        with answering() as sts:
            made = provider(sts.url, api=self.API)
            minted = await mint(made)
        source = ((b"x-amz-copy-source", b"/art/x"),)
        asked = Outgoing(b"PUT", b"/art/y", None, b"s3.eu-west-1.amazonaws.com", source)
        for copies in (False, True):
            scope = {**READ, "copy_source": copies}
            assert isinstance(made, Presents)
            signer = made.present(minted, request(scope)).signer
            assert signer is not None
            if copies:
                assert signer.sign(asked)
            else:
                with pytest.raises(Unsignable):
                    signer.sign(asked)

    @pytest.mark.parametrize("part", ["AccessKeyId", "SecretAccessKey", "SessionToken"])
    @pytest.mark.parametrize("value", [b"", b"a b", b"a\r\nHost: evil", b"\xc3\xa9", b"x" * 9000])
    async def test_what_would_not_stay_in_its_place_signs_nothing(
        self, part: str, value: bytes
    ) -> None:
        with answering() as sts:
            made = provider(sts.url, api=self.API)
            minted = await mint(made)
        assert isinstance(made, Presents)
        spoiled = replace(minted, fields={**minted.fields, part: Secret(value)})
        with pytest.raises(ProviderError, match="no request can be signed"):
            made.present(spoiled, request())

    async def test_a_service_without_an_api_signs_nothing(self) -> None:
        with answering() as sts:
            made = provider(sts.url)
            minted = await mint(made)
        assert isinstance(made, Presents)
        with pytest.raises(ProviderError, match="api"):
            made.present(minted, request())


class TestSessionName:
    @pytest.mark.parametrize(
        ("agent", "task", "name"),
        [
            ("release-bot", None, "release-bot"),
            ("release-bot", "build-7", "release-bot@build-7"),
        ],
    )
    def test_what_aws_takes_is_taken_as_it_is(
        self, agent: str, task: str | None, name: str
    ) -> None:
        assert session_name(agent, task) == name

    @pytest.mark.parametrize("task", ["tidy up", "über", "a/b:c", "x" * 200, "$(id)", "{agent}"])
    def test_what_aws_does_not_take_is_replaced_and_kept_apart(self, task: str) -> None:
        name = session_name("bot", task)
        assert re.fullmatch(r"[\w+=,.@-]{2,64}", name, re.ASCII)
        assert name == session_name("bot", task)
        assert name != session_name("bot", f"{task}!")

    def test_a_name_too_short_for_aws_becomes_longer(self) -> None:
        assert re.fullmatch(r"a-[0-9a-f]{10}", session_name("a", None))

    @given(st.text(min_size=1), st.none() | st.text())
    def test_any_name_is_one_that_aws_takes_or_refused(self, agent: str, task: str | None) -> None:
        try:
            name = session_name(agent, task)
        except ProviderError:
            assert not f"{agent}@{task}".isprintable()
        else:
            assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", name)

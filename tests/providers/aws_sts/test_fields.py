"""What policies may say of AWS sessions, and that no session is wider than its scope."""

from __future__ import annotations

import json
from typing import Any, Final

import botocore.session
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.errors import PolicyError
from broker.policy.loader import Document, load_policy
from broker.policy.plugins import InstalledPlugins
from providers.aws_sts import PLUGIN
from providers.aws_sts.fields import LARGEST_POLICY, AwsStsScope, AwsStsService
from tests.fakes.iam import allows, matches

ROLE: Final = "arn:aws:iam::123456789012:role/agent-task"
SERVICE: Final[dict[str, Any]] = {"role_arn": ROLE, "region": "eu-west-1"}
READ: Final[dict[str, Any]] = {
    "effect": "Allow",
    "actions": ["s3:GetObject"],
    "resources": ["arn:aws:s3:::art/*"],
}
EVERYTHING: Final = READ | {"actions": ["*"], "resources": ["*"]}


def scope(**fields: Any) -> AwsStsScope:
    return AwsStsScope.model_validate(fields)


def policy_of(**fields: Any) -> str:
    text = scope(**fields).policy(None)
    assert text is not None
    return text


class TestService:
    @pytest.mark.parametrize(
        "changes",
        [
            {"region": "us-gov-west-1", "role_arn": ROLE.replace("aws", "aws-us-gov")},
            {"region": "cn-north-1", "role_arn": ROLE.replace("aws", "aws-cn")},
            {"external_id": "acme/42"},
            {"max_session": "12h"},
            {"max_session": 900},
            {"endpoint_url": "https://sts.internal:8443", "role_arn": "arn:aws:iam:::role/task"},
            {"endpoint_url": "http://127.0.0.1:5000", "insecure_http": True},
            {"credentials": {"type": "default"}},
        ],
    )
    def test_what_is_a_role_is_taken(self, changes: dict[str, Any]) -> None:
        made = AwsStsService.model_validate(SERVICE | changes)
        assert AwsStsService.model_validate_json(made.model_dump_json()) == made

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("region", "evil.com/#"),
            ("region", "eu-west-1\n"),
            ("region", "eu-west-1.evil.com"),
            ("region", ""),
            ("region", "EU-WEST-1"),
            ("region", "us-gov-west-1"),
            ("role_arn", "agent-task"),
            ("role_arn", f"{ROLE}\r\n"),
            ("role_arn", "arn:aws:iam::123456789012:user/agent"),
            ("role_arn", "arn:aws:iam::12345:role/agent"),
            ("role_arn", "arn:aws:iam:::role/agent"),
            ("role_arn", "arn:aws-cn:iam::123456789012:role/agent"),
            ("external_id", "a b"),
            ("external_id", "x"),
            ("max_session", "14m"),
            ("max_session", "13h"),
            ("max_session", True),
            ("max_session", "soon"),
            ("endpoint_url", "http://127.0.0.1:5000"),
            ("endpoint_url", "https://user@sts.internal"),
            ("endpoint_url", "https://sts.internal/path"),
            ("endpoint_url", "file:///etc/passwd"),
            ("credentials", {"type": "keys", "access_key_id": "AKIAEXAMPLE"}),
            ("credentials", {"type": "web_identity", "role_arn": ROLE, "token_file": "token"}),
            ("credentials", {"type": "instance"}),
            ("profile", "prod"),
        ],
    )
    def test_what_is_none_is_refused_without_repeating_it(self, field: str, value: Any) -> None:
        with pytest.raises(ValidationError) as caught:
            AwsStsService.model_validate(SERVICE | {field: value})
        assert "AKIAEXAMPLE" not in str(caught.value)

    def test_every_region_that_aws_has_is_known_with_its_endpoint(self) -> None:
        partitions = botocore.session.Session().get_data("endpoints")["partitions"]
        regions = [(one, region) for one in partitions for region in one["regions"]]
        assert len(regions) > 30
        for partition, region in regions:
            made = AwsStsService.model_validate(
                {"role_arn": ROLE.replace("aws", partition["partition"], 1), "region": region}
            )
            assert made.endpoint == f"https://sts.{region}.{partition['dnsSuffix']}"


class TestScope:
    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({}, "full_role: true"),
            ({"session_tags": {"agent": "a"}}, "full_role: true"),
            ({"full_role": False}, "full_role: true"),
            ({"session_policy": []}, "at least 1"),
            ({"policy_arns": []}, "at least 1"),
            ({"session_policy": [EVERYTHING]}, "full_role: true alone"),
            ({"session_policy": [EVERYTHING | {"resources": ["arn:*:*:*:*:*"]}]}, "alone"),
            ({"session_policy": [READ, EVERYTHING]}, "full_role: true alone"),
            ({"policy_arns": ["arn:aws:iam::aws:policy/AdministratorAccess"]}, "alone"),
            ({"full_role": True, "session_policy": [READ]}, "session_policy is not"),
            ({"full_role": True, "policy_arns": ["arn:aws:iam::aws:policy/P"]}, "policy_arns"),
            ({"session_policy": [READ | {"effect": "Deny"}]}, "allows nothing"),
            ({"session_policy": [READ | {"effect": "allow"}]}, "Allow"),
            ({"session_policy": [READ | {"actions": []}]}, "at least 1"),
            ({"session_policy": [READ | {"resources": []}]}, "at least 1"),
            ({"session_policy": [READ | {"actions": ["GetObject"]}]}, "actions"),
            ({"session_policy": [READ | {"actions": ["s3:*Object{agent}"]}]}, "actions"),
            ({"session_policy": [READ | {"resources": ["bucket/*"]}]}, "resources"),
            ({"session_policy": [READ | {"resources": ["arn:aws:s3:::b\n"]}]}, "resources"),
            ({"session_policy": [READ | {"conditions": {}}]}, "at least 1"),
            ({"session_policy": [READ | {"conditions": {"StringIs": {"a": "b"}}}]}, "StringIs"),
            ({"session_policy": [READ | {"conditions": {"Bool": {}}}]}, "at least 1"),
            ({"session_policy": [READ | {"conditions": {"Bool": {"a": []}}}]}, "at least 1"),
            ({"session_policy": [READ | {"principal": "*"}]}, "principal"),
            ({"policy_arns": ["arn:aws:iam::aws:policy/P"] * 11}, "at most 10"),
            ({"policy_arns": [ROLE]}, "policy_arns"),
            ({"session_policy": [READ], "session_tags": {}}, "at least 1"),
            ({"session_policy": [READ], "session_tags": {"aws:x": "y"}}, "AWS's own"),
            ({"session_policy": [READ], "session_tags": {"A": "y", "a": "z"}}, "differ in case"),
            ({"session_policy": [READ], "session_tags": {"a": "y*"}}, "session_tags"),
            ({"session_policy": [READ], "session_tags": {"a": "y\r\n"}}, "session_tags"),
            (
                {"session_policy": [READ], "session_tags": {f"k{n}": "v" for n in range(51)}},
                "at most 50",
            ),
            ({"session_policy": [READ], "transitive_tags": ["team"]}, "no key of session_tags"),
        ],
    )
    def test_what_narrows_nothing_or_cannot_be_is_refused(
        self, fields: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(ValidationError, match=problem):
            scope(**fields)

    def test_a_policy_is_written_without_a_space_that_counts(self) -> None:
        conditions = {"StringLike": {"s3:prefix": ["a/*"]}, "Bool": {"aws:SecureTransport": "true"}}
        text = policy_of(session_policy=[READ | {"conditions": conditions}])
        assert " " not in text
        assert json.loads(text)["Statement"][0]["Condition"] == conditions

    @given(st.integers(1, 60))
    def test_a_policy_is_within_awss_room_whenever_it_is_used(self, count: int) -> None:
        resources = [f"arn:aws:s3:::a-bucket-of-acme/{n}/*" for n in range(count)]
        try:
            made = scope(session_policy=[READ | {"resources": resources}])
        except ValidationError as error:
            assert "2048" in str(error)  # noqa: PT017 - either outcome is right
            assert count > 30
        else:
            assert len(made.policy(4_000_000_000.0) or "") <= LARGEST_POLICY


def written(text: str) -> str:
    return f"""
identity_sources: {{laptop: {{type: local}}}}
services:
  aws: {{provider: aws_sts, role_arn: "{ROLE}", region: eu-west-1}}
scopes:
  s3.read: {{service: aws, delivery: [credential], {text}}}
agents:
  bot: {{trust: [{{source: laptop, claims: {{sub: bot}}}}], scopes: [s3.read]}}
"""


class TestInAPolicy:
    def test_a_scope_without_a_policy_is_a_load_error_that_says_what_to_write(self) -> None:
        with pytest.raises(PolicyError, match="session_policy or policy_arns") as caught:
            load_policy([Document("p.yaml", written("session_tags: {a: b}"))])
        assert "p.yaml" in str(caught.value)

    @pytest.mark.parametrize("rules", ['allow: ["GET /**"]', 'deny: ["* /**"]'])
    def test_http_rules_bind_nobody_who_has_the_session(self, rules: str) -> None:
        with pytest.raises(PolicyError, match="binds nobody"):
            load_policy([Document("p.yaml", written(f"full_role: true, {rules}"))])

    @pytest.mark.parametrize("delivery", ["[proxy]", "[credential, proxy]"])
    def test_the_gateway_signs_for_an_api_that_the_service_names(self, delivery: str) -> None:
        text = written('full_role: true, allow: ["GET /**"]').replace("[credential]", delivery)
        with pytest.raises(PolicyError, match="service 'aws' has no api"):
            load_policy([Document("p.yaml", text)])
        placed = text.replace("region: eu-west-1", "region: eu-west-1, api: {service: s3}")
        policy = load_policy([Document("p.yaml", placed)])
        upstream = policy.services["aws"].upstream
        assert upstream is not None
        assert upstream.host == "s3.eu-west-1.amazonaws.com"

    def test_through_the_gateway_a_scope_has_rules_beside_its_session_policy(self) -> None:
        text = written("full_role: true").replace("[credential]", "[proxy]")
        text = text.replace("region: eu-west-1", "region: eu-west-1, api: {service: s3}")
        with pytest.raises(PolicyError, match="'allow' is missing"):
            load_policy([Document("p.yaml", text)])

    def test_the_plugin_is_found_by_its_name(self) -> None:
        assert InstalledPlugins()["aws_sts"] is PLUGIN


ACTIONS: Final = ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "sqs:SendMessage", "iam:GetUser")
RESOURCES: Final = (
    "arn:aws:s3:::art/bot/report",
    "arn:aws:s3:::art/bot2/report",
    "arn:aws:s3:::art",
    "arn:aws:sqs:eu-west-1:123456789012:jobs",
)
PATTERNS: Final = ("*", "arn:aws:s3:::art/*", "arn:aws:s3:::art/bot/*", "arn:aws:s3:::ar?")
STATEMENTS: Final = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "actions": st.lists(
            st.sampled_from([*ACTIONS, "s3:*", "s3:Get*", "S3:getobject", "*"]), min_size=1
        ),
        "resources": st.lists(st.sampled_from([*RESOURCES, *PATTERNS]), min_size=1),
    }
)


def granted(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    """Judge a scope as it stands in the policy, without the provider's help."""
    effects = {
        one["effect"]
        for one in statements
        if any(matches(each.lower(), action.lower()) for each in one["actions"])
        and any(matches(each, resource) for each in one["resources"])
    }
    return effects == {"Allow"}


@given(
    st.lists(STATEMENTS, min_size=1, max_size=5),
    st.sampled_from(ACTIONS),
    st.sampled_from(RESOURCES),
    st.none() | st.integers(0, 2_000_000_000),
    st.integers(0, 2_000_000_000),
)
def test_no_session_is_wider_than_its_scope(
    statements: list[dict[str, Any]], action: str, resource: str, ends_at: int | None, now: int
) -> None:
    try:
        made = scope(session_policy=statements)
    except ValidationError:
        assume(False)
        raise
    sent = made.policy(ends_at)
    assert sent is not None
    in_time = ends_at is None or now < ends_at
    assert allows(sent, action, resource, now) == (
        in_time and granted(statements, action, resource)
    )


@given(st.lists(STATEMENTS, min_size=1, max_size=5))
def test_what_is_sent_is_what_the_scope_says_word_by_word(statements: list[dict[str, Any]]) -> None:
    try:
        made = scope(session_policy=statements)
    except ValidationError:
        assume(False)
        raise
    words = [
        {"Effect": one["effect"], "Action": one["actions"], "Resource": one["resources"]}
        for one in statements
    ]
    sent = json.loads(made.policy(None) or "")
    assert sent == {"Version": "2012-10-17", "Statement": words}
    ended = json.loads(made.policy(0.0) or "")["Statement"]
    assert ended[:-1] == words
    assert ended[-1]["Effect"] == "Deny"

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.allowance import LARGEST_BODY, Limits, Rate
from broker.policy.limits import MOST_PER_WINDOW, count_up_to, parse_rates, parse_size
from tests.fakes.policies import CLOUD_SCOPE, SMALL, changed, policy, problems

UNITS = ("second", "minute", "hour", "day")


def with_limits(text: str, field: str = "    risk: high\n") -> str:
    return changed(field, f"{field}    limits: {text}\n")


def told(text: str) -> str:
    (problem,) = problems(with_limits(text))
    return problem


def test_a_scope_and_an_agent_say_what_they_limit() -> None:
    text = with_limits(
        "{rate: [1000/day, 30/minute], concurrent: 4, total: 100, request_bytes: 1MiB, "
        "response_bytes: 1500}"
    ).replace("    max_ttl: 1h\n", "    max_ttl: 1h\n    limits: {rate: 5/second}\n")
    loaded = policy(text)
    limits = loaded.scopes["stripe.refund"].limits
    rates = (Rate(30, "minute"), Rate(1000, "day"))
    assert limits == Limits(rates, 4, 100, 1 << 20, 1500)
    assert limits.texts == (
        "rate 30/minute",
        "rate 1000/day",
        "concurrent 4",
        "total 100",
        "request_bytes 1MiB",
        "response_bytes 1500B",
    )
    assert loaded.agents["release-bot"].limits == Limits((Rate(5, "second"),))
    assert loaded.scopes["stripe.read"].limits is None
    assert loaded.agents["coder"].limits is None


@pytest.mark.parametrize("unit", UNITS)
def test_a_rate_is_for_one_window(unit: str) -> None:
    (rate,) = parse_rates(f"7/{unit}")
    assert str(rate) == f"7/{unit}"
    assert rate.seconds == {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}[unit]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{}", "an empty mapping limits nothing"),
        ("{rate: 0/minute}", "from 1 to 100000 requests in a window; the nearest is 1/minute"),
        ("{rate: -3/hour}", "from 1 to 100000 requests in a window; the nearest is 1/hour"),
        ("{rate: 10000000/day}", "the nearest is 100000/day"),
        ("{rate: 30/min}", "did you mean '30/minute'?"),
        ("{rate: 30/minutes}", "did you mean '30/minute'?"),
        ("{rate: 30 per hour}", "did you mean '30/hour'?"),
        ("{rate: 030/hour}", "did you mean '30/hour'?"),
        ("{rate: 30/Hour}", "did you mean '30/hour'?"),
        ("{rate: 30/minuet}", "a second, minute, hour or day; did you mean 'minute'?"),
        ("{rate: 30/week}", "a second, minute, hour or day"),
        ("{rate: 30}", "expected a rate such as 30/minute"),
        ("{rate: 1.5/second}", "expected a rate such as 30/minute"),
        ("{rate: often}", "expected a rate such as 30/minute"),
        ("{rate: []}", "an empty list says nothing"),
        ("{rate: [3/minute, 2/minute]}", "two rates for one minute; keep the smaller"),
        ("{rate: [10/minute, 10/day]}", "10/minute is never reached beside 10/day"),
        ("{rate: [1/day, 10/second]}", "10/second is never reached beside 1/day"),
        ("{concurrent: 0}", "a whole number from 1 to 10000; the nearest is 1"),
        ("{concurrent: -4}", "the nearest is 1"),
        ("{concurrent: 10001}", "the nearest is 10000"),
        ("{concurrent: true}", "a whole number"),
        ('{concurrent: "4"}', "a whole number"),
        ("{total: 0}", "from 1 to 1000000000; the nearest is 1"),
        ("{total: 1.5}", "a whole number"),
        ("{request_bytes: 0}", "of at least 1 byte"),
        ("{request_bytes: 1MB}", 'a size such as "512KiB"'),
        ("{response_bytes: -1}", 'a size such as "512KiB"'),
        ("{response_bytes: 2000GiB}", "the nearest is 512GiB"),
        ("{rates: 30/minute}", "unknown field 'rates'; did you mean 'rate'?"),
        ("{burst: 3}", "unknown field 'burst'"),
        ("[30/minute]", "expected a mapping"),
        ("30/minute", "expected a mapping"),
        ("", "no value; leave the field out or give it one"),
        ("{rate: }", "no value; leave the field out or give it one"),
    ],
)
def test_refuses_what_limits_nothing_or_makes_no_sense(text: str, what: str) -> None:
    problem = told(text)
    assert problem.startswith("0.yaml:23:")
    assert what in problem


def test_an_agents_limits_are_as_strict() -> None:
    text = changed("    max_ttl: 1h\n", "    max_ttl: 1h\n    limits: {rate: 30/min}\n")
    (problem,) = problems(text)
    assert "agent 'release-bot', limits.rate: " in problem
    assert "did you mean '30/minute'?" in problem


def test_no_message_repeats_what_is_no_number() -> None:
    assert "hunter2" not in told("{rate: hunter2/minute}")
    assert "hunter2" not in told("{concurrent: hunter2}")
    assert "hunter2" not in told("{request_bytes: hunter2}")


@pytest.mark.parametrize("field", ["concurrent: 1", "request_bytes: 1KiB", "response_bytes: 1KiB"])
def test_what_only_the_gateway_could_keep_is_refused_where_nothing_passes_it(field: str) -> None:
    scope = f"{CLOUD_SCOPE}    limits: {{rate: 1/minute, {field}}}\n"
    (problem,) = problems(SMALL, scope)
    name = field.partition(":")[0]
    assert f"{name!r} binds nobody who has the credential itself" in problem


def test_what_is_handed_out_can_be_counted() -> None:
    scope = f"{CLOUD_SCOPE}    limits: {{rate: 1/minute, total: 3}}\n"
    assert policy(SMALL, scope).scopes["cloud.use"].limits == Limits((Rate(1, "minute"),), None, 3)


@given(st.integers(1, MOST_PER_WINDOW), st.sampled_from(UNITS))
def test_reads_every_rate_as_it_is_written(amount: int, unit: Any) -> None:
    rate = Rate(amount, unit)
    assert parse_rates(str(rate)) == (rate,)


@given(st.text() | st.integers() | st.floats() | st.none() | st.lists(st.text()))
def test_whatever_else_stands_there_is_refused_in_words(value: object) -> None:
    for read in (parse_rates, count_up_to(10), parse_size):
        try:
            read(value)
        except ValueError as refusal:
            assert str(refusal)  # noqa: PT017 - of any reader that refuses


@given(st.integers(1, LARGEST_BODY))
def test_a_size_reads_as_it_is_shown(number: int) -> None:
    text = Limits(request_bytes=number).texts[0].removeprefix("request_bytes ")
    assert parse_size(text) == number
    assert parse_size(number) == number

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tests.broker.terraform.conftest import BOT, READ, STRIPE

if TYPE_CHECKING:
    from tests.broker.terraform.conftest import Site


def test_what_is_planned_is_judged_together(site: Site) -> None:
    planned = site.planned
    planned.add("scopes", "stripe.read", READ)
    (problem,) = planned.problems(site.api)
    assert problem["field"] == "service"
    planned.add("services", "stripe", STRIPE)
    planned.add("agents", "bot", BOT)
    assert planned.problems(site.api) == []
    assert planned.holds("agents", "bot")
    assert not planned.holds("agents", "nobody")
    assert site.names("services") == []


def test_what_cannot_be_told_yet_is_taken_for_granted(site: Site) -> None:
    site.planned.add("services", "stripe", None)
    site.planned.add("scopes", "stripe.read", READ)
    assert site.planned.problems(site.api) == []
    site.planned.add("services", "stripe", {**STRIPE, "base_ur": "nowhere"})
    assert site.planned.problems(site.api)[0]["field"] == "base_ur"


def test_threads_may_plan_at_once(site: Site) -> None:
    def plan(number: int) -> int:
        site.planned.add("services", f"s{number}", STRIPE)
        return len(site.planned.problems(site.api))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(plan, range(16))) == {0}
    assert all(site.planned.holds("services", f"s{number}") for number in range(16))

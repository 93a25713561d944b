from __future__ import annotations

from tests.contracts.revocations import CHILD, GRANDCHILD, GREAT, ROOT


def test_a_line_is_a_grant_and_all_that_it_descends_from() -> None:
    assert ROOT.line == ("root",)
    assert set(GREAT.line) == {"root", "child", "grandchild", "great"}
    assert (ROOT.parent_jti, CHILD.parent_jti) == (None, "root")
    assert set(CHILD.line) < set(GRANDCHILD.line)


def test_parties_are_the_agent_and_all_who_act_or_have_acted() -> None:
    assert ROOT.parties == ("bot",)
    assert GRANDCHILD.parties == ("bot", "helper")
    assert GREAT.parties == ("bot", "third", "helper")

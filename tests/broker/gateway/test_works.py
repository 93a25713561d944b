from __future__ import annotations

import asyncio
from typing import Any

from broker.gateway.works import WholeBodies, Works


async def test_spawned_work_is_kept_until_it_is_done() -> None:
    names = "limits resource authorization credentials pool recorder clock room whole_bodies"
    parts: dict[str, Any] = dict.fromkeys(names.split())
    works = Works(loop=asyncio.get_running_loop(), **parts)
    finished = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        finished.set()

    works.spawn(work())
    assert len(works.tasks) == 1
    await finished.wait()
    await asyncio.sleep(0)
    assert not works.tasks


def test_whole_bodies_are_bounded_and_no_agent_has_all_the_room() -> None:
    bodies = WholeBodies(100)
    assert bodies.take("a", 50)
    assert not bodies.take("a", 26)
    assert bodies.take("a", 25)
    assert not bodies.take("a", 1)
    assert not bodies.take("b", 26)
    assert bodies.take("b", 25)
    assert (bodies.size, bodies.take("c", 1)) == (100, False)
    for agent, size in (("a", 50), ("a", 25), ("b", 25)):
        bodies.give(agent, size)
    assert bodies.size == 0
    assert bodies.take("a", 75)


def test_nothing_is_kept_of_an_agent_without_a_body() -> None:
    bodies = WholeBodies(100)
    assert not bodies.take("a", 200)
    assert bodies.take("b", 20)
    bodies.give("b", 20)
    bodies.give("c", 0)
    assert not bodies._agents

from __future__ import annotations

import asyncio
from typing import Any

from broker.gateway.works import Works


async def test_spawned_work_is_kept_until_it_is_done() -> None:
    parts: dict[str, Any] = dict.fromkeys(
        ("limits", "resource", "authorization", "credentials", "pool", "recorder", "clock", "room")
    )
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

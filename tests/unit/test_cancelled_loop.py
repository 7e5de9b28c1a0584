"""An asynchronous loop over events, cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trialbus
from support.until import until_async


@pytest.mark.parametrize("n_turns", range(6))
async def test_a_loop_that_is_cancelled_while_an_arrival_wakes_it_ends(
    tmp_path: Path, n_turns: int
) -> None:
    async with trialbus.subscribe(endpoint=f"ipc://{tmp_path}/hub.sock") as inbox:
        fetcher: Any = inbox._fetcher  # pyright: ignore[reportPrivateUsage]

        async def consume() -> None:
            async for _ in inbox:
                pass

        consumer = asyncio.create_task(consume())
        arrive: Callable[[], None] = await until_async(lambda: fetcher.on_arrival, 10)
        arrive()
        for _ in range(n_turns):  # the arrival takes some turns of the loop to wake the consumer
            await asyncio.sleep(0)
        consumer.cancel()
        done, _ = await asyncio.wait([consumer], timeout=10)
        assert done == {consumer}
        assert consumer.cancelled()

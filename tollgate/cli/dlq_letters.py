"""The dead letters of a stack, joined from Kafka (what they are) and Postgres (how they stand)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tollgate.cli.services import Services
from tollgate.errors import RejectedInput

if TYPE_CHECKING:
    from processor.redrive import Dead

Progress = Callable[[str, int, int], None]


async def read_dead(services: Services, progress: Progress) -> list[Dead]:
    """Without their values. How they stand is read after what they are: never newer than that."""
    from processor.kafka.dead_letters import read_letters
    from processor.redrive import standing_letters
    from processor.storage.database import open_pool
    from processor.storage.dead_letters import standings

    def show(done: int, of: int) -> None:
        progress("dead letters", done, of)

    letters = await asyncio.to_thread(
        lambda: standing_letters(read_letters(services.kafka_bootstrap, show), {})
    )
    pool = await open_pool(services.postgres_dsn, 1)
    try:
        known = await standings(pool)
    finally:
        await pool.close()
    return standing_letters((one.letter for one in letters), known)


async def with_values(services: Services, dead: Sequence[Dead]) -> list[Dead]:
    """The same with what they hold."""
    from processor.kafka.dead_letters import read_values

    offsets = [one.letter.offset for one in dead]
    values = await asyncio.to_thread(read_values, services.kafka_bootstrap, offsets)
    return [replace(one, letter=replace(one.letter, value=values[one.letter.offset])) for one in dead]


async def find_letter(services: Services, origin: str) -> Dead:
    """With its value. Raises RejectedInput when there is none of that name."""
    found = [
        one
        for one in await read_dead(services, lambda _what, _done, _of: None)
        if str(one.letter.origin) == origin
    ]
    if not found:
        raise RejectedInput(f"There is no dead letter {origin}. `tollgate dlq list --all` shows them.")
    return (await with_values(services, found))[0]

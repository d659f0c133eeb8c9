"""One storm from its beginning to its verdict: a stack of its own, load, faults, rest, `tollgate verify`.

What is found is in `Broken`; all that was done and told stands in `report.json` beside the stack's data.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson

from tests.fault.storm.allowance import calls_too_many
from tests.fault.storm.calm import CALM_S, calm
from tests.fault.storm.plan import Fault, Kind, budget_of, storm_of
from tests.fault.storm.report import Round, Verdict, document, findings_of, table
from tests.fault.storm.shoppers import Shoppers
from tests.fault.storm.stage import Stage, stage
from tests.fault.storm.strikes import Strikes, Struck
from tests.fault.storm.wishes import wishes
from tests.fixtures.kept_connections import KeptConnections
from tollgate.cli.pay_witnesses import read_ledger
from tollgate.cli.verify import leak_scan
from tollgate.client_log import ClientLog

# All is at rest: nothing counts as under way. It took as long as the storm let it.
_STRICTLY: Final = ("--json", "--settle", "0", "--open-for", "60", "--limit", "20")
PER_SECOND: Final = 5.0


class Broken(AssertionError):
    """A promise. `problems` say which, of whom."""

    def __init__(self, played: Round) -> None:
        super().__init__(f"{len(played.problems)} problems\n{table(played)}")
        self.problems = list(played.problems)


@dataclass(frozen=True)
class Storm:
    """`tree` holds other sources than this checkout's. Where no `budget` is given the seed may draw one."""

    folder: Path
    seconds: float
    tree: Path | None = None
    budget: float | None = None
    kinds: tuple[Kind, ...] = tuple(Kind)
    per_second: float = PER_SECOND
    rest_s_max: float = CALM_S

    def play(self, seed: int, number: int) -> Round:
        """Raises Broken, with the whole report in the folder."""
        played = asyncio.run(self._play(seed, number))
        (self.folder / "report.json").write_bytes(orjson.dumps(document(played), option=orjson.OPT_INDENT_2))
        (self.folder / "report.txt").write_text(table(played))
        if played.problems:
            raise Broken(played)
        return played

    async def _play(self, seed: int, number: int) -> Round:
        plan = storm_of(seed, number, self.seconds, self.kinds)
        budget = self.budget or budget_of(seed, number)
        self.folder.chmod(0o755)  # Postgres may have to run as another user
        async with stage(self.folder, budget=budget, tree=self.tree) as staged:
            own = staged.stack.json
            with ClientLog(self.folder / "clients.jsonl", own.merchant, leak_scan(own).in_text) as log:
                strikes, shoppers, ended = await self._rage(staged, log, plan, seed, number)
            restless = await calm(staged.stack, shoppers.told.accepted, self.rest_s_max)
            problems = [f"not at rest: {one}" for one in restless]
            problems += shoppers.told.unheard_of
            rest_s = time.monotonic() - ended
            verdict, found = await self._verify(staged, strikes.struck, budget)
        return Round(
            seed,
            number,
            plan,
            sorted(strikes.struck, key=lambda one: one.at_s),
            shoppers.told,
            self.seconds,
            round(rest_s, 1),
            verdict,
            problems + found,
        )

    async def _rage(
        self, staged: Stage, log: ClientLog, plan: Sequence[Fault], seed: int, number: int
    ) -> tuple[Strikes, Shoppers, float]:
        """Returns when the last shopper has gone, all faults healed, and when the storm was over."""
        host_port = urlsplit(staged.stack.json.base_url).netloc
        async with KeptConnections(host_port, staged.stack.json.api_key) as client:
            wanted = wishes(f"storm-{seed}-{number}", seed, number)
            shoppers = Shoppers(client, log, wanted, self.per_second, seed)
            strikes = Strikes(staged, lambda: shoppers.under_way)
            shopping = asyncio.create_task(shoppers.run())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(strikes.play(plan))
                    group.create_task(asyncio.sleep(self.seconds))
            finally:
                ended = time.monotonic()
                await strikes.heal()
                shoppers.end()
                await shopping
        return strikes, shoppers, ended

    async def _verify(
        self, staged: Stage, struck: Sequence[Struck], budget: float | None
    ) -> tuple[Verdict, list[str]]:
        log = str(self.folder / "clients.jsonl")
        done = await asyncio.to_thread(staged.stack.tollgate, "verify", "--client-log", log, *_STRICTLY)
        problems: list[str] = []
        if budget is not None:
            ledger = await read_ledger(staged.stack.json.psp_simulator_url, 0)
            problems = calls_too_many(ledger["calls"], budget)
        try:
            verdict: Verdict = orjson.loads(done.stdout)
        except orjson.JSONDecodeError:
            return {}, [f"verify said nothing: {done.stdout}{done.stderr}", *problems]
        return verdict, findings_of(verdict, struck) + problems

"""`make campaign`: storms over a whole stack until `--minutes` of a seed are played, earlier runs included.

Each storm is of five minutes at most and has a stack of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from tests.fault.campaign import Campaign
from tests.fault.storm.results import Run
from tests.fault.storm.round import Broken, Storm

_MINUTES_A_ROUND: Final = 5.0
_RESULTS: Final = Path(__file__).parents[3] / "benchmarks/results/campaign.json"


class StormCampaign(Campaign[Run]):
    def _options(self) -> argparse.Namespace:
        return _parsed()


def main() -> int:
    seconds = 60 * _parsed().minutes / _parsed().rounds

    def storm(folder: Path, _first: int) -> AbstractContextManager[Storm]:
        return nullcontext(Storm(folder, seconds))

    return StormCampaign("campaign", Run, storm, 1, (Broken,)).main()


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=_MINUTES_A_ROUND)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    options = parser.parse_args()
    options.rounds = max(1, math.ceil(options.minutes / _MINUTES_A_ROUND))
    return options


if __name__ == "__main__":
    sys.exit(main())

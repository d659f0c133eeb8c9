"""A failing run made shorter: acts are left out as long as the same promise is still broken.

An act that is left out still lets its time pass, so that the rest happens when it did; at the end times that
follow each other are put together. Delta debugging (Zeller, Hildebrandt 2002), bounded in runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tests.simulation.acts import Act
from tests.simulation.play import Played, play

RUNS_MAX: Final = 200


def shrink(failed: Played, runs_max: int = RUNS_MAX) -> Played:
    """The shortest run that was found; `failed` itself when none is shorter."""
    assert failed.broken is not None
    left = runs_max
    best = replace(failed, acts=failed.acts[: failed.step])
    chunk = max(1, len(best.acts) // 2)
    while left > 0:
        at, shorter = 0, False
        while at < len(best.acts) and left > 0:
            acts = [*best.acts[:at], *map(_silent, best.acts[at : at + chunk]), *best.acts[at + chunk :]]
            if acts != list(best.acts):
                left -= 1
                if (played := _still(failed, acts)) is not None:
                    best, shorter = played, True
            at += chunk
        if chunk == 1 and not shorter:
            break
        chunk = max(1, chunk // 2)
    merged = _still(failed, _merged(best.acts))
    return merged or best


def _silent(act: Act) -> Act:
    return Act("nothing", 0, 0, act.dt_us)


def _still(failed: Played, acts: Sequence[Act]) -> Played | None:
    assert failed.broken is not None
    played = play(failed.seed, len(acts), acts)
    if played.broken is None or played.broken.rule != failed.broken.rule:
        return None
    return replace(played, acts=played.acts[: played.step])


def _merged(acts: Sequence[Act]) -> list[Act]:
    merged: list[Act] = []
    for act in acts:
        if act.kind == "nothing" and merged and merged[-1].kind == "nothing":
            merged[-1] = merged[-1]._replace(dt_us=merged[-1].dt_us + act.dt_us)
        else:
            merged.append(act)
    return merged


def told(failed: Played, lines_max: int = 120) -> str:
    """For a person: what was broken, which acts lead there, and the end of what happened."""
    acts = "\n".join(f"  {act}" for act in failed.acts[: failed.step])
    trace = "\n".join(failed.trace[-lines_max:])
    return (
        f"seed {failed.seed}, step {failed.step}: {failed.broken}\n"
        f"{len(failed.acts)} acts:\n{acts}\nthe end of its trace:\n{trace}"
    )

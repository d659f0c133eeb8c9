"""Runs first in every Python process of a stack in a storm, and gives each part an environment of its own.

`STORM_PARTS` names a folder with `<part>.json`; a part that has one starts itself once more, in the same
process, with what stands there: a library can be preloaded only then. On the PYTHONPATH of the campaign
alone.
"""

import json
import os
import sys


def _part() -> str | None:
    arguments = sys.orig_argv
    if "-m" not in arguments:
        return None
    match arguments[arguments.index("-m") + 1]:
        case "gateway":
            return f"shard-{os.environ['TOLLGATE_SHARD__ID']}"
        case "cdc":
            return f"cdc-{os.environ['TOLLGATE_SHARD__ID']}"
        case "processor":
            return os.environ["TOLLGATE_PROCESSOR__INSTANCE"]
    return None


def _become(part: str) -> None:
    path = os.path.join(os.environ["STORM_PARTS"], f"{part}.json")
    if os.environ.get("STORM_PART") == part or not os.path.exists(path):
        return
    with open(path) as file:
        os.environ.update(json.load(file), STORM_PART=part)
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - itself


if "STORM_PARTS" in os.environ and (_name := _part()) is not None:
    _become(_name)

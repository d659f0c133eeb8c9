"""Where shards, their stores and Kafka are: of the local stack, or of the one shard that the settings name.

The settings are those that a cdc process itself is given (`TOLLGATE_SHARD__ID`, `…DATA_DIR`, `…GRPC`,
`TOLLGATE_KAFKA_BOOTSTRAP`, `TOLLGATE_CDC__OPS`), so that the command can be run beside it as it stands.
Nothing needs to run for this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict

from tollgate.errors import ConfigurationError, OperationalError, RejectedInput
from tollgate.local.paths import StackPaths, choose_data_dir
from tollgate.local.ports import PortPlan
from tollgate.local.stack_json import read_stack_json
from tollgate.ring_file import read_ring_file
from tollgate.settings import TollgateSettings, load
from tollgate.shard_layout import DATABASE_DIR

if TYPE_CHECKING:
    from cdc.shard_log import ShardLog

ShardOption = Annotated[int | None, typer.Option("--shard", min=0, help="One shard only. Default: all.")]


@dataclass(frozen=True)
class ShardPlace:
    """`ops` is where its cdc process answers; None where there is none (a removed shard)."""

    shard: int
    data_dir: Path
    ops: str | None
    is_retired: bool = False


@dataclass(frozen=True)
class Places:
    kafka_bootstrap: str
    shards: tuple[ShardPlace, ...]

    def of(self, shard: int | None) -> tuple[ShardPlace, ...]:
        """Those asked for. Raises RejectedInput when there are none."""
        found = tuple(place for place in self.shards if shard in (None, place.shard))
        if not found:
            known = ", ".join(str(place.shard) for place in self.shards) or "none"
            raise RejectedInput(f"There is no shard {shard} here. Known: {known}.")
        return found


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Shard(_Section):
    id: int | None = None
    data_dir: Path | None = None


class _Cdc(_Section):
    ops: str | None = None


class _Settings(TollgateSettings):
    shard: _Shard = _Shard()
    cdc: _Cdc = _Cdc()
    kafka_bootstrap: str | None = None


def find_places(data_dir: Path | None) -> Places:
    """`data_dir` (the stack's) goes before the settings. Raises OperationalError when there is neither."""
    settings = load(_Settings)
    if data_dir is None and settings.shard.data_dir is not None:
        return _of_settings(settings, settings.shard.data_dir)
    paths = choose_data_dir(data_dir)
    stack = read_stack_json(paths.stack_json)
    if stack is None:
        raise OperationalError(
            f"There is no {paths.stack_json}. Start the stack with `tollgate up`, name its --data-dir, or "
            "set TOLLGATE_SHARD__ID, TOLLGATE_SHARD__DATA_DIR and TOLLGATE_KAFKA_BOOTSTRAP for one shard."
        )
    return Places(stack.kafka_bootstrap, _of_stack(paths))


def _of_settings(settings: _Settings, data_dir: Path) -> Places:
    if settings.shard.id is None or settings.kafka_bootstrap is None:
        raise ConfigurationError(
            "TOLLGATE_SHARD__DATA_DIR is set, so TOLLGATE_SHARD__ID and TOLLGATE_KAFKA_BOOTSTRAP must be too."
            " Unset it, or give --data-dir, to look at the local stack."
        )
    place = ShardPlace(settings.shard.id, data_dir, settings.cdc.ops)
    return Places(settings.kafka_bootstrap, (place,))


def _of_stack(paths: StackPaths) -> tuple[ShardPlace, ...]:
    """The ring's shards, and those that have left it and still have a store."""
    ops: dict[int, str | None] = {
        int(store.parent.name): None
        for store in paths.shards.glob(f"*/{DATABASE_DIR}")
        if store.parent.name.isdecimal()
    }
    retired: tuple[int, ...] = ()
    if paths.ring.exists():
        ring = read_ring_file(paths.ring)
        retired = ring.retired
        for shard in ring.shards:
            host, _, port = shard.grpc.rpartition(":")
            ops[shard.id] = f"{host}:{PortPlan().cdc_ops(int(port))}"
    return tuple(ShardPlace(shard, paths.shard(shard), ops[shard], shard in retired) for shard in sorted(ops))


@contextmanager
def opened_logs(places: tuple[ShardPlace, ...]) -> Iterator[list[ShardLog]]:
    """Each shard's change log, open. Raises OperationalError, or ConfigurationError for another's store."""
    from cdc.shard_log import ShardLog

    with ExitStack() as opened:
        logs = []
        for place in places:
            log = ShardLog(place.data_dir)
            opened.callback(log.close)
            if (found := log.look().shard) != place.shard:
                raise ConfigurationError(
                    f"The store in {place.data_dir} is that of shard {found}, not of shard {place.shard}. "
                    "Correct TOLLGATE_SHARD__ID or TOLLGATE_SHARD__DATA_DIR."
                )
            logs.append(log)
        yield logs

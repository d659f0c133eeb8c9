"""`stack.json`: what runs and where to reach it, for people, tests and commands. The contract of DESIGN §7.

Written by the supervisor alone, mode 0600, replaced atomically. It outlives the stack: after `down` it still
holds the addresses and the development key (its only place), with no processes.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from tollgate.errors import CorruptionError
from tollgate.files import replace_file
from tollgate.ids import new_api_key

MERCHANT = "demo"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardProcess(_Frozen):
    """`http` is a URL, `grpc` host:port."""

    id: int
    pid: int
    http: str
    grpc: str
    data_dir: str


class CdcProcess(_Frozen):
    shard: int
    pid: int


class ProcessorProcess(_Frozen):
    pid: int
    grpc: str


class ServiceProcess(_Frozen):
    pid: int


class StackJson(_Frozen):
    """`services` names kafka, postgres, nginx and psp_simulator; what runs elsewhere is not in it."""

    base_url: str
    api_key: str
    merchant: str
    kafka_bootstrap: str
    postgres_dsn: str
    psp_simulator_url: str
    shards: tuple[ShardProcess, ...] = ()
    cdc: tuple[CdcProcess, ...] = ()
    processors: tuple[ProcessorProcess, ...] = ()
    services: dict[str, ServiceProcess] = {}

    def without_processes(self) -> StackJson:
        return self.model_copy(update={"shards": (), "cdc": (), "processors": (), "services": {}})


def read_stack_json(path: Path) -> StackJson | None:
    """None when there is none. Raises CorruptionError when it isn't one."""
    try:
        return StackJson.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptionError(
            f"{path} can't be read ({error.error_count()} problems). Remove it; "
            "the next `tollgate up` writes a new one, with a new development key."
        ) from None


def write_stack_json(path: Path, stack: StackJson) -> None:
    replace_file(path, stack.model_dump_json(indent=2) + "\n")


def api_key_of(path: Path) -> str:
    """The development key that `path` holds, or a new one when there is no such file yet."""
    known = read_stack_json(path)
    return new_api_key() if known is None else known.api_key

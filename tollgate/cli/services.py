"""Where a stack's Kafka and Postgres are, for commands that ask them.

The local stack's by its folder; else those of `TOLLGATE_KAFKA_BOOTSTRAP` and `TOLLGATE_POSTGRES_DSN`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tollgate.errors import OperationalError
from tollgate.local.paths import choose_data_dir
from tollgate.local.stack_json import read_stack_json
from tollgate.settings import TollgateSettings, load


@dataclass(frozen=True)
class Services:
    kafka_bootstrap: str
    postgres_dsn: str = field(repr=False)


class _Settings(TollgateSettings):
    kafka_bootstrap: str | None = None
    postgres_dsn: Annotated[str | None, Field(repr=False)] = None


def find_services(data_dir: Path | None) -> Services:
    """`data_dir` (the stack's) goes before the settings. Raises OperationalError when there is neither."""
    settings = load(_Settings)
    if data_dir is None and settings.kafka_bootstrap and settings.postgres_dsn:
        return Services(settings.kafka_bootstrap, settings.postgres_dsn)
    path = choose_data_dir(data_dir).stack_json
    stack = read_stack_json(path)
    if stack is None:
        raise OperationalError(
            f"There is no {path}. Start the stack with `tollgate up`, name its --data-dir, or set "
            "TOLLGATE_KAFKA_BOOTSTRAP and TOLLGATE_POSTGRES_DSN."
        )
    return Services(stack.kafka_bootstrap, stack.postgres_dsn)

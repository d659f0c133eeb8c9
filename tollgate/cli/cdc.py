"""`tollgate cdc`: how far each shard's change log has come to Kafka, and whether all of it is there."""

from __future__ import annotations

import typer

from tollgate.cli.cdc_replay import replay
from tollgate.cli.cdc_status import status
from tollgate.cli.cdc_verify import verify

app = typer.Typer(
    help="The way of the changes to Kafka: how far they are, whether all are there, and once more.",
    no_args_is_help=True,
)
for command in (status, verify, replay):
    app.command()(command)

"""`tollgate cdc`: how far each shard's change log has come to Kafka, and whether all of it is there."""

from __future__ import annotations

import typer

from tollgate.cli.cdc_verify import verify

app = typer.Typer(
    help="The way of the changes to Kafka: compare, record by record.",
    no_args_is_help=True,
)
app.command()(verify)
app.callback()(lambda: None)

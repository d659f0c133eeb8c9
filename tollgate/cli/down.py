"""`tollgate down`: stops the stack, and whatever a killed supervisor left; the data stay."""

from __future__ import annotations

from rich.console import Console

from tollgate.cli.options import DataDir
from tollgate.local.launch import shut_down
from tollgate.local.paths import choose_data_dir


def down(data_dir: DataDir = None) -> None:
    """Stop everything; come back when no process is left. Harmless when nothing runs."""
    paths = choose_data_dir(data_dir)
    console = Console()
    ran = shut_down(paths)
    console.print(
        f"Stopped. The data stay in {paths.data_dir}." if ran else "Nothing was running.",
        highlight=False,
        soft_wrap=True,
    )

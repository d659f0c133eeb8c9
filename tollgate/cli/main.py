"""The `tollgate` command: imports the sub-command asked for, and turns errors into one sentence."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

from tollgate.errors import TollgateError

_COMMANDS: Final = {
    "up": "tollgate.cli.up:up",
    "status": "tollgate.cli.status:status",
    "logs": "tollgate.cli.logs:logs",
    "down": "tollgate.cli.down:down",
    "pay": "tollgate.cli.pay:pay",
    "capture": "tollgate.cli.operate:capture",
    "cancel": "tollgate.cli.operate:cancel",
    "refund": "tollgate.cli.operate:refund",
    "verify": "tollgate.cli.verify:verify",
    "cdc": "tollgate.cli.cdc:app",
    "shards": "tollgate.cli.shards:app",
    "dlq": "tollgate.cli.dlq:app",
    "payments": "tollgate.cli.payments:app",
}


def build_app(asked_for: str | None) -> typer.Typer:
    """With `asked_for` alone when it is a command (imports cost time), else with all, for help."""
    app = typer.Typer(
        help="Tollgate's local stack: start it, watch it, pay with it, check it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_a_group_even_with_one_command)
    for name in [asked_for] if asked_for in _COMMANDS else _COMMANDS:
        module, _, function = _COMMANDS[name].partition(":")
        found = getattr(import_module(module), function)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _a_group_even_with_one_command() -> None:
    return None


def main() -> None:
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except TollgateError as error:
        sys.stderr.write(f"tollgate: {error.message}\n")
        sys.exit(1)
    except PermissionError as error:
        what = error.filename or "what this needs"
        sys.stderr.write(
            f"tollgate: This user may not open {what}. If another user's stack is there, run the command as "
            "that user; else choose another folder with --data-dir.\n"
        )
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)  # the reader of our output went away


if __name__ == "__main__":
    main()

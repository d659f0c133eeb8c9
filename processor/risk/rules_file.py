"""Reads the rules from their file, once, at start. All problems are reported together."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from processor.risk.rules import Rules
from tollgate.errors import ConfigurationError


def load_rules(path: Path | None) -> Rules:
    """Without a path: the rules that decline nothing. Raises ConfigurationError."""
    if path is None:
        return Rules()
    try:
        return Rules.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigurationError(f"The risk rules {path} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The risk rules {path} are no TOML: {error}.") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"The risk rules {path} can't be used: {problems}.") from None

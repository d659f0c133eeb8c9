"""The one root of every error that Tollgate raises on purpose.

Four families, by what the receiver does about them: rejected input (tell the client, 4xx), overload (tell
the client to come again, 429 or 503), operational (retry), corruption (stop and call a person). Foreign
errors are translated into these at the adapter that met them.
"""

from __future__ import annotations


class TollgateError(Exception):
    """What happened, to which id, and what to do next, in one sentence a person can act on.

    `code` is stable and machine-readable; `retryable` says whether the same call may succeed later; `context`
    carries ids for the log, never secrets.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.context = context


class RejectedInput(TollgateError):
    """The caller's input is wrong; sending it again changes nothing."""

    code = "invalid_request"


class Overloaded(TollgateError):
    """A bound was reached. The caller comes again after `Retry-After`."""

    code = "overloaded"
    retryable = True


class OperationalError(TollgateError):
    """A dependency or this part is not able to work now; retrying is right."""

    code = "unavailable"
    retryable = True


class CorruptionError(TollgateError):
    """Stored data contradicts itself. Nothing is guessed: the part stops."""

    code = "corruption"


class ConfigurationError(TollgateError):
    """The settings can't work. Reported all together, before anything is opened."""

    code = "configuration"

"""A dead letter as a person reads it, without what a payer or a PSP wrote (description, metadata, a body)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from tollgate.clock import rfc3339
from tollgate.v1.change_pb2 import Change

if TYPE_CHECKING:
    from processor.redrive import Dead

_BYTES_SHOWN: Final = 64
_SHOWN_OF_PAYMENT: Final = ("merchant", "checkout_id", "amount", "currency", "psp", "capture", "version")


def describe(dead: Dead) -> Iterator[str]:
    """Line by line; control characters of a broken content are escaped."""
    letter = dead.letter
    yield f"origin    {letter.origin}"
    yield f"state     {dead.state.value}, redriven {dead.replays} times"
    yield f"error     {_printable(letter.error)}"
    yield f"since     {rfc3339(letter.at_ms * 1000)}, record {letter.offset} of the queue"
    yield f"key       {_printable(letter.key.decode(errors='replace'))}"
    for name, value in letter.headers:
        yield f"header    {_printable(name)} = {_readable(value)}"
    yield from _content(letter.value)


def _content(value: bytes) -> Iterator[str]:
    try:
        change = Change.FromString(value)
    except DecodeError:
        yield f"value     {len(value)} bytes, no Change: {value[:_BYTES_SHOWN].hex(' ')}"
        return
    yield f"value     {len(value)} bytes"
    yield f"change    {change.sequence} of shard {change.shard}, epoch {change.epoch}"
    match change.WhichOneof("body"):
        case "acceptance":
            for name in _SHOWN_OF_PAYMENT:
                yield f"payment   {name} = {_printable(str(getattr(change.acceptance, name)))}"
        case "webhook":
            webhook = change.webhook
            yield f"webhook   psp = {_printable(webhook.psp)}, event = {_printable(webhook.event_id)}"
        case _:
            yield "body      none"


def _readable(value: bytes) -> str:
    text = value.decode(errors="replace")
    return text if text.isprintable() else value[:_BYTES_SHOWN].hex(" ")


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)

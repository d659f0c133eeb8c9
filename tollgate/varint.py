"""Protobuf's variable-length integers. https://protobuf.dev/programming-guides/encoding/#varints"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """`value` is not negative. Seven bits a byte, lowest first; all but the last have the high bit set."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def varint_at(raw: bytes, at: int) -> int:
    """The one that begins at `at`; one that is cut off at the end is read as far as it goes."""
    value = shift = 0
    for byte in raw[at : at + 10]:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value

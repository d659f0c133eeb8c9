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

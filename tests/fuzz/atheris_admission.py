"""Coverage-guided bodies for admission, held against the oracle. Run by `make fuzz`, where atheris is there.

libFuzzer changes bytes so that new branches are reached, from the kept corpus on; what it finds on the way
stays in the folder that is its first argument. Ends with the body on the first difference.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["gateway.admission", "gateway.card_numbers", "tests.fuzz.oracle"]):
    from tests.fuzz.admission_check import check


def one_body(data: bytes) -> None:
    """The first line is the id in the header when it is short enough to be one."""
    line, end, rest = data.partition(b"\n")
    if end and len(line) <= 70:
        check(rest, line.decode("latin-1"))
    else:
        check(data, "order-0001")


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_body)
    atheris.Fuzz()

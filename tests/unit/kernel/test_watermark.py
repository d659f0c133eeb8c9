from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tollgate.watermark import SIZE, Watermark, WatermarkReader, WatermarkWriter

INCARNATION = bytes(range(16))


def test_a_reader_sees_what_the_writer_published(tmp_path: Path) -> None:
    writer = WatermarkWriter(tmp_path / "watermark")
    reader = WatermarkReader(tmp_path / "watermark")
    assert reader.read() is None
    writer.publish(Watermark(INCARNATION, 3, 17))
    assert reader.read() == Watermark(INCARNATION, 3, 17)
    writer.publish(Watermark(INCARNATION, 3, 18))
    assert reader.read() == Watermark(INCARNATION, 3, 18)


def test_a_torn_value_is_never_believed(tmp_path: Path) -> None:
    path = tmp_path / "watermark"
    WatermarkWriter(path).publish(Watermark(INCARNATION, 1, 5))
    raw = bytearray(path.read_bytes())
    raw[24] ^= 1  # the sequence moved, its digest did not
    path.write_bytes(raw)
    assert WatermarkReader(path).read() is None


def test_there_is_no_watermark_before_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "watermark"
    with pytest.raises(FileNotFoundError):
        WatermarkReader(path)
    path.write_bytes(b"\0" * (SIZE - 1))
    with pytest.raises(FileNotFoundError):
        WatermarkReader(path)


def test_a_reader_beside_a_busy_writer_only_sees_published_values(tmp_path: Path) -> None:
    path = tmp_path / "watermark"
    writer = WatermarkWriter(path)
    writer.publish(Watermark(INCARNATION, 1, 0))
    reader = WatermarkReader(path)
    rounds = 20_000

    def write() -> None:
        for sequence in range(1, rounds + 1):
            writer.publish(Watermark(INCARNATION, sequence % 7, sequence))

    thread = threading.Thread(target=write)
    thread.start()
    last = 0
    while last < rounds:
        seen = reader.read()
        if seen is None:
            continue
        assert seen.incarnation == INCARNATION
        assert seen.sequence >= last
        assert seen.epoch == seen.sequence % 7 or seen.sequence == 0
        last = seen.sequence
    thread.join()

"""A part's log is cut while the part goes on writing."""

from __future__ import annotations

from pathlib import Path

from tollgate.local.logs import bound_logs


def test_a_log_beyond_its_bound_is_kept_once_and_cut_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "shard-0.log"
    with log.open("ab", buffering=0) as writer:
        for round_number in range(3):
            writer.write(b"%d" % round_number * 1001)
            bound_logs(tmp_path, bytes_max=1000)
            assert log.stat().st_size == 0
            assert (tmp_path / "shard-0.log.1").read_bytes() == b"%d" % round_number * 1001
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_within_its_bound_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_bytes(b"x" * 1000)
    bound_logs(tmp_path, bytes_max=1000)
    assert log.read_bytes() == b"x" * 1000

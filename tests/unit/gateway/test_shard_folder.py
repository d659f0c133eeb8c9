"""The data folder before its store is opened: what is damage, and what only looks like it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.store.folder import open_watermark, prepare_folder
from tollgate.errors import CorruptionError, OperationalError
from tollgate.watermark import Watermark

WATERMARK = Watermark(b"\7" * 16, 2, 41)


def test_a_new_folder_is_made_and_remembers_nothing(tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "shards" / "3") is None
    assert (tmp_path / "shards" / "3" / "db").is_dir()


def test_the_watermark_has_its_space_before_its_first_value(tmp_path: Path) -> None:
    """A store to a mapped page that a full disk can't back is a SIGBUS."""
    open_watermark(tmp_path)
    assert (tmp_path / "watermark").stat().st_blocks > 0


def test_what_the_last_run_published_is_found_again(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    writer = open_watermark(tmp_path)
    writer.publish(WATERMARK)
    writer.close()
    assert prepare_folder(tmp_path) == WATERMARK
    os.truncate(tmp_path / "watermark", 17)
    assert prepare_folder(tmp_path) is None


@pytest.mark.parametrize("name", ["000004.log", "000009.sst"])
def test_records_without_current_are_damage(tmp_path: Path, name: str) -> None:
    prepare_folder(tmp_path)
    (tmp_path / "db" / name).write_bytes(b"a record")
    with pytest.raises(CorruptionError, match=f"CURRENT is missing.*{name}.*Operator action"):
        prepare_folder(tmp_path)
    (tmp_path / "db" / "CURRENT").write_text("MANIFEST-000001\n")
    prepare_folder(tmp_path)


def test_a_first_start_that_was_killed_may_begin_again(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    for name in ("LOG", "LOCK", "MANIFEST-000001", "IDENTITY"):
        (tmp_path / "db" / name).write_bytes(b"x")
    (tmp_path / "db" / "000004.log").touch()
    assert prepare_folder(tmp_path) is None


def test_a_folder_that_can_not_be_used_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationalError, match=r"can't be used: Not a directory.*Operator action"):
        prepare_folder(tmp_path / "file" / "shard")
    (tmp_path / "watermark").mkdir()
    with pytest.raises(OperationalError, match="can't be used: Is a directory"):
        open_watermark(tmp_path)

"""The jars of the embedded Kafka: whole or not there, fetched once, one clear sentence when they can't be
had."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock

import pytest

from tollgate.errors import OperationalError
from tollgate.local.kafka_jars import Jar, cache_dir, ensure_jars, locked_jars

JARS = [
    Jar("org.example", f"part-{number}", "1.0", hashlib.sha256(f"bytes {number}".encode()).hexdigest())
    for number in range(5)
]


class FakeRepository:
    """Has every jar; breaks as it is told."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.error: Exception | None = None
        self.wrong = ""
        self._lock = Lock()

    def __call__(self, jar: Jar, staging: Path) -> Path:
        with self._lock:
            self.fetched.append(jar.artifact)
        if self.error is not None:
            raise self.error
        path = staging / jar.file_name
        content = f"bytes {jar.artifact.removeprefix('part-')}"
        path.write_text("something else" if jar.artifact == self.wrong else content)
        return path


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository()


def test_the_lock_names_every_jar_once_with_its_digest_and_no_place_to_get_it() -> None:
    jars = locked_jars()
    assert len(jars) == len({jar.file_name for jar in jars}) == 46
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in jars)
    assert any(str(jar).startswith("org.apache.kafka:kafka_2.13:4.1.") for jar in jars)


def test_everything_is_fetched_once_and_then_taken_from_the_cache(
    tmp_path: Path, repository: FakeRepository
) -> None:
    seen: list[tuple[int, int]] = []
    paths = ensure_jars(
        tmp_path / "jars", lambda done, total: seen.append((done, total)), jars=JARS, fetch=repository
    )
    assert [path.read_text() for path in paths] == [f"bytes {number}" for number in range(5)]
    assert seen == [(done, 5) for done in range(6)]
    repository.error = AssertionError("fetched again")
    assert ensure_jars(tmp_path / "jars", jars=JARS, fetch=repository) == paths


def test_a_torn_or_changed_jar_is_fetched_again(tmp_path: Path, repository: FakeRepository) -> None:
    first, second, *_ = ensure_jars(tmp_path, jars=JARS, fetch=repository)
    first.write_text("byt")
    second.unlink()
    repository.fetched.clear()
    ensure_jars(tmp_path, jars=JARS, fetch=repository)
    assert sorted(repository.fetched) == ["part-0", "part-1"]
    assert first.read_text() == "bytes 0"


def test_what_an_interrupted_fetch_left_is_never_taken(tmp_path: Path, repository: FakeRepository) -> None:
    staging = tmp_path / ".staging"
    staging.mkdir()
    (staging / JARS[0].file_name).write_text("half of it")
    ensure_jars(tmp_path, jars=JARS, fetch=repository)
    assert not staging.exists()
    assert len(repository.fetched) == 5


def test_a_jar_that_is_not_the_locked_one_is_not_installed(
    tmp_path: Path, repository: FakeRepository
) -> None:
    repository.wrong = "part-3"
    with pytest.raises(OperationalError, match=r"org.example:part-3:1.0 that was fetched is not the one"):
        ensure_jars(tmp_path, jars=JARS, fetch=repository)
    assert not (tmp_path / JARS[3].file_name).exists()


@pytest.mark.parametrize("error", [ConnectionError("no route"), RuntimeError("not found anywhere")])
def test_without_a_network_one_sentence_says_what_to_do(
    tmp_path: Path, repository: FakeRepository, error: Exception
) -> None:
    repository.error = error
    with pytest.raises(OperationalError, match=r"Connect to the network once, or set TOLLGATE_KAFKA_"):
        ensure_jars(tmp_path, jars=JARS, fetch=repository)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path, repository: FakeRepository) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperationalError, match="TOLLGATE_CACHE"):
        ensure_jars(tmp_path / "file" / "jars", jars=JARS, fetch=repository)


def test_the_cache_is_the_users_and_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOLLGATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tollgate" / "jars"
    monkeypatch.setenv("TOLLGATE_CACHE", str(tmp_path / "elsewhere"))
    assert cache_dir() == tmp_path / "elsewhere" / "jars"

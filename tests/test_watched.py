"""Values follow their files; what is wrong leaves them as they were and is said once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from server import watched
from server.errors import StartError
from server.watched import Watched, read_file


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOOK_SECONDS", 0)


def number_in(path: Path) -> Callable[[], int]:
    def read() -> int:
        text = read_file("--number", path)
        if not text.isdigit():
            raise StartError("expected a number")
        return int(text)

    return read


def reasons(log: list[EventDict]) -> list[str]:
    return [line["reason"] for line in log if line["log_level"] == "error"]


def test_a_value_is_read_when_its_files_changed_and_not_otherwise(tmp_path: Path) -> None:
    file, other = tmp_path / "number", tmp_path / "other"
    file.write_text("1")
    reads: list[int] = []

    def read() -> int:
        reads.append(number_in(file)())
        return reads[-1]

    number = Watched("numbers", [file, other], read)
    assert [number.current() for _ in range(5)] == [1] * 5
    assert len(reads) == 1
    file.write_text("22")
    assert [number.current() for _ in range(5)] == [22] * 5
    assert len(reads) == 2
    other.write_text("it came to be")
    number.current()
    assert len(reads) == 3
    replacement = tmp_path / "new"
    replacement.write_text("33")  # as long as the one before
    replacement.replace(file)
    assert number.current() == 33


def test_what_is_wrong_leaves_the_value_and_is_logged_once(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    number = Watched("numbers", [file], number_in(file))
    with structlog.testing.capture_logs() as log:
        file.write_text("many")
        assert [number.current() for _ in range(5)] == [1] * 5
        assert reasons(log) == ["expected a number"]
        file.unlink()
        assert [number.current() for _ in range(5)] == [1] * 5
        assert reasons(log)[1:] == [f"--number {file}: can't be read: No such file or directory"]
        file.write_text("2")
        assert [number.current() for _ in range(5)] == [2] * 5
    assert [line["event"] for line in log][2:] == ["numbers renewed"]


def test_what_is_wrong_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="can't be read"):
        Watched("numbers", [tmp_path / "number"], number_in(tmp_path / "number"))


def test_files_are_looked_at_no_more_often_than_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "LOOK_SECONDS", 3600)
    file = tmp_path / "number"
    file.write_text("1")
    number = Watched("numbers", [file], number_in(file))
    file.write_text("2")
    assert number.current() == 1

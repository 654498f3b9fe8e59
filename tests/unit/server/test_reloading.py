"""Values are reloaded from their files; a wrong file changes no value and is logged once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.typing import EventDict

from server.errors import StartError
from server.observability.metrics import ServerMetrics
from server.security import reloading
from server.security.reloading import ReloadedValue, read_file, start_reloading
from tests.support.servers import wait_until


def number_in(path: Path) -> Callable[[], int]:
    def read() -> int:
        text = read_file("--number", path)
        if not text.isdigit():
            raise StartError("expected a number")
        return int(text)

    return read


def refreshed(number: ReloadedValue[int]) -> list[int]:
    """Return the value at each of some looks."""
    found = []
    for _ in range(5):
        number.refresh()
        found.append(number.current())
    return found


def reasons(log: list[EventDict]) -> list[str]:
    return [line["reason"] for line in log if line["log_level"] == "error"]


def test_a_value_is_read_only_after_changes(tmp_path: Path) -> None:
    file, other = tmp_path / "number", tmp_path / "other"
    file.write_text("1")
    reads: list[int] = []

    def read() -> int:
        reads.append(number_in(file)())
        return reads[-1]

    number = ReloadedValue("numbers", [file, other], read)
    assert refreshed(number) == [1] * 5
    assert len(reads) == 1
    file.write_text("22")
    assert refreshed(number) == [22] * 5
    assert len(reads) == 2
    other.write_text("it came to be")
    number.refresh()
    assert len(reads) == 3
    replacement = tmp_path / "new"
    replacement.write_text("33")  # as long as the one before
    replacement.replace(file)
    number.refresh()
    assert number.current() == 33


def test_a_wrong_file_keeps_the_value_logged_once(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    number = ReloadedValue("numbers", [file], number_in(file))
    with structlog.testing.capture_logs() as log:
        file.write_text("many")
        assert refreshed(number) == [1] * 5
        assert reasons(log) == ["expected a number"]
        assert not number.is_current()
        file.unlink()
        assert refreshed(number) == [1] * 5
        assert reasons(log)[1:] == [f"--number {file}: can't be read: No such file or directory"]
        file.write_text("2")
        assert refreshed(number) == [2] * 5
        assert number.is_current()
    assert [line["event"] for line in log][2:] == ["numbers renewed"]


def test_a_wrong_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="can't be read"):
        ReloadedValue("numbers", [tmp_path / "number"], number_in(tmp_path / "number"))


def test_an_unreadable_file_is_tried_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "number"
    file.write_text("1")
    failures: list[OSError] = []

    def read() -> int:
        if failures:
            raise failures.pop()
        return number_in(file)()

    number = ReloadedValue("numbers", [file], read)
    file.write_text("2")
    failures += [OSError("short of descriptors")] * 2
    with structlog.testing.capture_logs() as log:
        assert refreshed(number) == [1, 1, 2, 2, 2]
    assert len(reasons(log)) == 1


def test_a_change_during_a_read_is_no_error(tmp_path: Path) -> None:
    """As of a pair of which one is swapped a moment later than the other."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("1")

    def read() -> int:
        if one.read_text() != other.read_text():
            other.write_text(one.read_text())  # a moment too late
            raise StartError("they do not belong together")
        return number_in(one)()

    pair = ReloadedValue("pairs", [one, other], read)
    with structlog.testing.capture_logs() as log:
        one.write_text("22")
        assert refreshed(pair) == [1, 22, 22, 22, 22]
    assert reasons(log) == []


def test_files_are_reloaded_at_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "REFRESH_SECONDS", 0.01)
    file = tmp_path / "number"
    file.write_text("1")
    number = ReloadedValue("numbers", [file], number_in(file))
    start_reloading([number], ServerMetrics().count_failure)
    file.write_text("2")
    wait_until(lambda: number.current() == 2)

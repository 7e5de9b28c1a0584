"""The check that a folder can hold files, and the report about a service that could not print."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.until import until
from trialbus import SpecError
from trialbus.errors import TrialbusError
from trialbus_services.process.child import Child, find_error
from trialbus_services.process.paths import check_writable


@contextmanager
def full_disk() -> Generator[None]:
    """Let every write to a file fail in this process and in new child processes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def supervise_until_error(child: Child) -> str:
    """Supervise a service until an error is raised, and return the text of the error."""
    restarts: list[str] = []
    with pytest.raises(TrialbusError) as error:
        until(lambda: not child.supervise(restarts.append), 60, "the error of the service")
    assert restarts == []
    return str(error.value)


@pytest.mark.parametrize("folder", ["", "new", "new/inner"])
def test_a_folder_that_exists_or_can_be_created_passes_and_stays_as_it_is(
    tmp_path: Path, folder: str
) -> None:
    check_writable(tmp_path / folder, "bus.dir")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder_belongs_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(Path(".trialbus"), "bus.dir")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_named_with_the_key(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SpecError, match=r"^bus\.dir: '.*/file/bus': Not a directory in '.*/file' "):
        check_writable(file / "bus", "bus.dir")


def test_a_full_disk_is_named_with_key_and_folder(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(SpecError) as error:
        check_writable(tmp_path, "bus.dir")
    assert str(error.value).startswith(f"bus.dir: '{tmp_path}': File too large (expected a folder")


def test_a_service_that_fails_is_reported_with_its_last_message_of_this_start(
    tmp_path: Path,
) -> None:
    log = tmp_path / "hub.log"
    log.write_text("a line of yesterday\n")
    child = Child("hub", ["bus.sync=never"], ["bus.sync=never"], log)
    message = supervise_until_error(child)
    child.wait()
    assert "the hub exited with code 2" in message
    assert "code 2: bus.sync: " in message
    assert "\n    on the command line: bus.sync=never\n" in message
    assert f"\n  the whole output: {log}" in message
    assert "yesterday" not in message


def test_a_service_without_space_for_its_reason_is_reported_with_the_full_folder(
    tmp_path: Path,
) -> None:
    with full_disk():
        child = Child("hub", ["bus.sync=never"], ["bus.sync=never"], tmp_path / "logs" / "hub.log")
        message = supervise_until_error(child)
        child.wait()
    assert f"it printed nothing\n  bus.dir: '{tmp_path}/logs': File too large" in message


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("", ["it printed nothing"]),
        ("09:00 hub serving\n", ["09:00 hub serving"]),
        ("serving\nerror: no x\n  on line 3\nnext: do y\n", ["no x", "  on line 3", "next: do y"]),
        (
            "09:00 hub failed\nTraceback (most recent):\n  File a\nValueError: several\nlines\n",
            ["ValueError: several", "lines"],
        ),
        ("Traceback (most recent call last):\n  File a\nKeyError: 1\nerror: bad\n", ["bad"]),
    ],
    ids=["nothing", "no error", "error", "traceback", "error after a traceback"],
)
def test_the_whole_error_at_the_end_of_an_output_is_found(output: str, lines: list[str]) -> None:
    assert find_error(output) == lines


def test_a_service_whose_log_cannot_be_written_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(TrialbusError, match=r"the hub cannot be started: no log .*bus\.dir"):
        Child("hub", [], [], tmp_path / "logs" / "hub.log")

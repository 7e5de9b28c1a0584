"""A wrong path, port, URL or number on a command line ends in a line with the wrong value."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trialbus_services.cli import main as cli

TRAIN = "import trialbus\n\nwith trialbus.attach() as trial:\n    trial.report(0, {})\n"
PORT = "is not a port (expected 0 to 65535)"
FOLDER = "(expected a folder that this user may write)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory of the command, which has a script and a storage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "list.json").write_text("[1, 2]\n")
    return tmp_path


def read_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the only line that a command printed to stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["report", "--storage", "train.py"], "--storage: 'train.py' is neither a SQLite database"),
        (["report", "--storage", "list.json"], "--storage: 'list.json' is neither a SQLite"),
        (["report", "--storage=journal:///train.py"], "--storage: 'train.py' is neither a SQLite"),
        (
            ["report", "--storage", "sqlite:///train.py"],
            "--storage: 'sqlite:///train.py' is not a SQLite database",
        ),
        (["report", "storage.url=train.py"], "storage.url: 'train.py' is neither a SQLite"),
        (["report", "--storage", "."], "--storage: there is no file '.'"),
        (["report", "--storage", "nosuch://x"], "--storage: 'nosuch://x' cannot be opened"),
        (["metrics", "--port", "99999"], f"--port: 99999 {PORT}"),
        (["metrics", "--port=-1"], f"--port: -1 {PORT}"),
        (["metrics", "--address", ""], "--address: '' is not the address of a machine"),
        (["metrics", "--endpoint", "nope"], "--endpoint: 'nope' is not ipc://<path> or tcp://"),
        (["watch", "--endpoint=tcp://x"], "--endpoint: 'tcp://x' is not ipc://<path> or tcp://"),
        (["keys", "--dir", "/proc/nope", "init"], "keys: '/proc/nope': No such file or directory"),
        (["keys", "--dir", "train.py", "init"], f"'train.py': File exists {FOLDER}"),
        (["keys", "new", "../alice"], "'../alice' cannot be the name of a key (expected letters,"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_in_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert text in read_error(capsys)


def test_a_folder_of_reports_that_cannot_be_made_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{folder}/a.db")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    capsys.readouterr()
    command = ["report", "s", "--storage", "a.db", "--dir", "/proc/nope"]
    assert cli.main(command) == 2
    assert read_error(capsys) == f"error: --dir: '/proc/nope': No such file or directory {FOLDER}"


def test_a_port_that_is_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert cli.main(["metrics", "--port", str(port)]) == 2
    assert f"--port: {port} on 127.0.0.1 cannot be bound: Address already in use" in read_error(
        capsys
    )


@pytest.mark.parametrize(
    "arguments", [["events", "--trial", "-1"], ["keys", "new", "a", "--study", "s"]], ids=str
)
def test_an_option_that_cannot_be_used_is_explained_with_the_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_path_that_fails_unforeseen_is_named_and_other_faults_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise OSError(*arguments)

    monkeypatch.setattr("trialbus_services.cli.keys.keys", fail)
    arguments: tuple[int | str, ...] = (28, "No space left on device", "/data/x")
    assert cli.main(["keys"]) == 1
    assert read_error(capsys) == "error: '/data/x': No space left on device"
    arguments = (5, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        cli.main(["keys"])


@pytest.mark.parametrize("name", ["keys", "status"])
def test_ctrl_c_ends_a_command_with_130(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: list[str]) -> int:
        raise KeyboardInterrupt

    module = {"keys": "keys", "status": "inspect"}[name]
    monkeypatch.setattr(f"trialbus_services.cli.{module}.{name}", interrupt)
    assert cli.main([name]) == 130

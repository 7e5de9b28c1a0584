"""Reports appear whole, and `trialbus report` reads all storages of Optuna."""

from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from support.stories import record_study
from trialbus_services.cli.main import main
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.reporter.staging import make_report

OPTIONS = ReportSettings(figures=["history"], files=["csv", "params"])
QUICK = "report.figures=[history]"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(folder: Path, name: str = "digits") -> optuna.Study:
    url = f"sqlite:///{folder}/made.db"
    record_study(name, url)
    return optuna.load_study(study_name=name, storage=url)


def test_a_report_replaces_the_one_before_and_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    made = study(tmp_path)
    page, *others = make_report(made, tmp_path, OPTIONS)
    (page.parent / "notes.txt").write_text("mine")
    before = page.read_text()
    made.tell(made.ask(), 0.5)
    assert make_report(made, tmp_path, OPTIONS) == [page, *others]
    assert page.read_text() != before
    assert (page.parent / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".unfinished-*"))


def test_a_report_that_fails_on_its_way_leaves_the_page_before(tmp_path: Path) -> None:
    made = study(tmp_path)
    page = make_report(made, tmp_path, OPTIONS)[0]
    before = page.read_text()
    table = page.parent / "trials.csv"
    table.unlink()
    table.mkdir()  # where a file is to be put
    made.tell(made.ask(), 0.5)
    with pytest.raises(OSError, match="directory"):
        make_report(made, tmp_path, OPTIONS)
    assert page.read_text() == before
    assert not list(tmp_path.glob(".unfinished-*"))


def test_what_killed_processes_left_is_removed_and_what_others_write_is_not(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / ".unfinished-old", tmp_path / ".unfinished-new"
    for folder in (old, new):
        (folder / "digits").mkdir(parents=True)
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    make_report(study(tmp_path), tmp_path, OPTIONS)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize("as_url", [True, False])
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_study_that_plain_optuna_wrote_is_reported_and_its_storage_left_as_it_is(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str, *, as_url: bool
) -> None:
    file = here / "plain.file"
    url = f"{kind}:///{file}"
    if kind == "sqlite":
        record_study("plain", url)
    else:
        storage = JournalStorage(JournalFileBackend(str(file)))
        plain = optuna.create_study(study_name="plain", storage=storage)
        plain.tell(plain.ask(), 0.5)
    before = file.read_bytes()
    assert main(["report", "plain", QUICK, "--storage", url if as_url else str(file)]) == 0
    page = Path(capsys.readouterr().out.splitlines()[0])
    assert page == here / "reports" / "plain" / "report.html"
    assert page.is_file()
    assert file.read_bytes() == before
    assert {path.name for path in here.iterdir()} == {"plain.file", "reports"}


def test_a_study_that_still_runs_is_reported(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = study(here)
    running.tell(running.ask(), 0.5)
    running.ask()
    assert main(["report", "digits", QUICK, "storage.url=sqlite:///made.db", "report.dir=out"]) == 0
    assert "running" in (here / "out" / "digits" / "trials.csv").read_text()
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_the_storage_and_folder_of_one_s_own_tree_are_used(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study(here)
    (here / "conf" / "storage").mkdir(parents=True)
    (here / "conf" / "storage" / "mine.yaml").write_text("url: sqlite:///made.db")
    arguments = ["digits", "--config-dir", "conf", "storage=mine", "--dir", "elsewhere"]
    assert main(["report", QUICK, *arguments]) == 0
    assert (here / "elsewhere" / "digits" / "report.html").is_file()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digts", "--storage", "made.db"], "no study 'digts' in 'made.db'; did you mean 'digits'"),
        (["--storage", "made.db"], "which study? 'made.db' has:\ndigits"),
        (["x", "--storage", "nosuch.db"], "--storage: there is no file 'nosuch.db'"),
        (["x"], "storage.url: there is no file 'optuna_studies.db'"),
        (
            ["x", "--storage", "text.txt"],
            "--storage: 'text.txt' is neither a SQLite database nor a",
        ),
        (["x", "--storage", "other.db"], "cannot be read: it holds no studies of Optuna"),
        (["x", "--storage", "broken.db"], "cannot be read: file is not a database"),
        (["x", "--storage", "oracel:///x"], "'oracel:///x' cannot be opened"),
        (["x", "--storage", "memory://"], "'memory://' ends with the optimizer"),
        (["x", "storage=nosuch"], "there is no 'nosuch'"),
        (["x", "report.dirr=y"], "report.dirr: no such key; did you mean 'dir'?"),
        (["x", "--config-dir", "nosuch"], "--config-dir: 'nosuch' is not a folder"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_and_nothing_is_made(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    study(here)
    (here / "text.txt").write_text("not a journal")
    (here / "broken.db").write_bytes(b"SQLite format 3\0" + b"no" * 600)
    with optuna.storages.RDBStorage(f"sqlite:///{here}/other.db").engine.begin() as connection:
        for table in ("version_info", "alembic_version"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
    before = {path.name for path in here.iterdir()}
    assert main(["report", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert {path.name for path in here.iterdir()} == before


def test_studies_are_compared_in_one_page(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        study(here, name)
    assert main(["report", "one", "two", "--compare", "--storage", "made.db"]) == 0
    (page,) = map(Path, capsys.readouterr().out.splitlines())
    assert page == here / "reports" / "comparison.html"
    assert all(name in page.read_text() for name in ("one", "two"))
    assert [path.name for path in page.parent.iterdir()] == ["comparison.html"]


def test_the_password_of_a_storage_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/x"
    assert main(["report", "x", "--storage", url]) == 2
    shown = capsys.readouterr().err
    assert "postgresql+psycopg://me:***@127.0.0.1:1/x" in shown
    assert "secret" not in shown

"""Folders and files that are named after a study."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import optuna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trialbus.study.folder_name import name_folder
from trialbus_services.config.report_settings import ReportSettings
from trialbus_services.process import paths
from trialbus_services.reporter.report import write_report

#: Similar names: equal but for case, separators, dots, or the end of a long name.
SIMILAR_NAMES = st.one_of(
    st.text(),
    st.text(alphabet="aA_-./ ~\u017f\u212a\ufb01", max_size=6),
    st.text(alphabet="ab", min_size=55, max_size=105),
    st.sampled_from(["con", "NUL", "com1.txt", "é", "e\u0301", "..", "a\ud800", "-rf", "lpt9."]),
)
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def fold(name: str) -> str:
    """Return the name that a file system compares which ignores case and forms of accents."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())


@given(SIMILAR_NAMES, SIMILAR_NAMES)
@example("lr sweep/a", "lr_sweep_a")
@example("A", "a")
@example("é", "e\u0301")
@example("", "stand-alone")
@example("a", "a.")
@example("x" * 300, "x" * 301)
def test_two_studies_never_share_a_folder(one: str, other: str) -> None:
    assert one == other or fold(name_folder(one)) != fold(name_folder(other))


@given(SIMILAR_NAMES)
def test_no_study_has_the_folder_that_the_rule_made_for_another(study: str) -> None:
    folder = name_folder(study)
    assert folder == study or name_folder(folder) != folder


@given(SIMILAR_NAMES)
@example("..")
@example("")
@example("日本" * 99)
@example("\ud800" * 99)
def test_a_folder_s_name_is_one_short_visible_part_of_a_path(study: str) -> None:
    folder = name_folder(study)
    assert 0 < len(folder.encode()) <= 100
    assert len(unicodedata.normalize("NFD", folder).encode()) < 240
    assert Path("here", folder).parent == Path("here")
    assert not re.search(r'[\x00-\x1f/\\:*?"<>|\s]', folder)
    assert folder[0] not in ".-"
    assert folder[-1] != "."
    assert not RESERVED.fullmatch(folder)


@given(st.from_regex(r"\A[a-z0-9_](?:[a-z0-9_.-]{0,50}[a-z0-9_])?\Z"))
@example("digits")
@example("ppo-cartpole")
@example("digits-v1.2")
@example("x" * 100)
def test_a_plain_name_stays_as_it_is(study: str) -> None:
    plain = not RESERVED.fullmatch(study) and not study.endswith((".html", ".json"))
    assert not plain or re.search("-[0-9a-f]{16}$", study) or name_folder(study) == study


def test_no_folder_is_where_another_study_s_results_are(tmp_path: Path) -> None:
    path = paths.locate_results_file(tmp_path, "digits")
    assert paths.locate_results_directory(tmp_path, path.name) != path


@pytest.mark.parametrize("study", ["..", ".", "../../etc", "/etc", "a\\b", "x" * 300, "日本" * 99])
def test_every_path_stays_in_its_directory(tmp_path: Path, study: str) -> None:
    logs = paths.locate_trial_log(tmp_path, study, 3, 1)
    assert (logs.name, logs.resolve().parents[1]) == ("3-1.log", tmp_path.resolve())
    run = paths.locate_run_directory(tmp_path, study, 3)
    assert (run.name, run.resolve().parents[1]) == ("3", tmp_path.resolve())
    assert run.is_absolute()
    for path in (
        paths.locate_report_directory(tmp_path, study),
        paths.locate_results_directory(tmp_path, study),
        paths.locate_results_file(tmp_path, study),
    ):
        assert path.resolve().parent == tmp_path.resolve()
    run.mkdir(parents=True)


def test_two_studies_whose_names_are_alike_have_two_reports(tmp_path: Path) -> None:
    for name in ("lr sweep/a", "lr_sweep_a", "LR_sweep_a"):
        study = optuna.create_study(study_name=name)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        write_report(study, tmp_path, options=ReportSettings(figures=[], files=["summary"]))
    summaries = [path.read_text() for path in tmp_path.glob("*/summary.md")]
    assert len(summaries) == len({text.splitlines()[0] for text in summaries}) == 3

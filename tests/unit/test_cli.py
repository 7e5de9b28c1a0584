"""The `trialbus` command: the help, and the scripts that call the command."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trialbus_services.cli import main as cli
from trialbus_services.config.composing import compose_config

ROOT = Path(__file__).parents[2]
# What serves for ever or takes overrides answers `--help` all the same.
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def test_the_help_has_one_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    commands, _, _ = capsys.readouterr().out.partition("examples:")
    named = re.findall(r"^  (\w+) +\S.*$", commands, re.MULTILINE)
    assert sorted(named) == sorted([*cli.COMMANDS, *cli.TOOLS])


@pytest.mark.parametrize("name", cli.TOOLS)
def test_a_command_with_options_can_be_imported_and_explains_them(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(pkgutil.resolve_name(cli.TOOLS[name]))
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: trialbus {name}")


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_the_help_of_a_command_with_a_config_has_its_purpose_and_settings_and_where_all_are(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: trialbus {name}")
    assert len(out.splitlines()) < 25
    settings = re.findall(r"^  ([a-z][\w.]*=\S+)", out, re.MULTILINE)
    assert len(settings) == 3
    with compose_config(settings):
        pass  # every setting exists
    with pytest.raises(SystemExit):
        cli.main([name, "--help", "-v"])
    assert "n_trials: 24" in capsys.readouterr().out


def test_a_command_that_is_not_there_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["stdy"]) == 2
    assert "did you mean 'study'?" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_works_from_the_root_of_the_repository(script: str) -> None:
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "trialbus" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["study", "--help"], ["study", "--cfg", "job"]])
@pytest.mark.parametrize("is_buffered", [True, False], ids=["buffered", "unbuffered"])
def test_a_command_whose_output_nobody_reads_ends_quietly(
    arguments: list[str], *, is_buffered: bool
) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if is_buffered else "1"}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "trialbus_services", *arguments],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_as_a_word_is_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help"]) == 0
    assert capsys.readouterr().out.startswith("usage: trialbus COMMAND")
    assert cli.main(["help", "worker"]) == 0
    assert capsys.readouterr().out.startswith("usage: trialbus worker")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--dryrun", "there is no option '--dryrun'; did you mean '--dry-run'?"),
        ("train.py", "'train.py' is a program (expected a study file, such as"),
    ],
)
def test_a_command_names_what_was_meant_by_a_wrong_argument(
    argument: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["study", argument]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line

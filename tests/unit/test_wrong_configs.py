"""A wrong config is refused with file, key, value and expectation before any process starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from omegaconf import OmegaConf

from trialbus_services.cli import main as cli
from trialbus_services.config.composing import compose_config

#: A study in the user's own tree with nothing wrong in it.
MINE = """\
name: mine
n_trials: 4
budget: 3
objective: {metric: loss, direction: minimize}
params:
  lr: {type: float, low: 1.0e-5, high: 0.1, log: true}
  width: {type: int, low: 16, high: 64}
"""
TRAINER = ("trainer=command", "trainer.command=[python,-c,pass]")
FILE = "in conf/study/mine.yaml, line"
LINE = "on the command line"


@dataclass(frozen=True)
class Wrong:
    """A mistake in a config.

    Attributes:
        says: What the message has to hold, each of it.
        overrides: On the command line, after what makes the study complete.
        change: Text of `study/mine.yaml`, and what stands in its place.
        files: Further files of the user's tree.
        options: In place of `--config-dir conf study=mine` and the trainer.
    """

    says: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    change: tuple[str, str] = ("", "")
    files: dict[str, str] = field(default_factory=dict[str, str])
    options: tuple[str, ...] = ("--config-dir=conf", "study=mine", *TRAINER)


def line(*overrides: str, says: tuple[str, ...]) -> Wrong:
    """Return a mistake on the command line, which the message names."""
    return Wrong((*says, LINE, overrides[-1]), overrides)


def written(old: str, new: str, *says: str, at: int | None = None) -> Wrong:
    """Return a mistake in the user's file, which the message names with the line."""
    return Wrong((*says, f"{FILE} {at or ''}".rstrip()), change=(old, new))


CIRCLE = """\
name: mine
n_trials: 4
objective: {metric: loss}
params:
  depth: {type: int, low: 1, high: 3, when: {width: 16}}
  width: {type: int, low: 16, high: 64, when: {depth: 1}}
"""
LR = "{type: float, low: 1.0e-5, high: 0.1, log: true}"
OBJECTIVE = "{metric: loss, direction: minimize}"

WRONG = {
    # Keys
    "misspelt key": written(
        "n_trials", "n_trails", "study.n_trails: no such key", "'n_trials'?", at=2
    ),
    "misspelt key of a param": written(
        "log: true", "logg: true", "study.params.lr.logg: no such key", "'log'?", at=6
    ),
    "misspelt key of an objective": written(
        "metric: loss", "metrc: loss", "study.objective.metrc: no such key", "'metric'?", at=4
    ),
    "misspelt key of a section": line(
        "bus.endpont=ipc://x", says=("bus.endpont: no such key", "did you mean 'endpoint'?")
    ),
    "misspelt section": line("buss.dir=x", says=("buss: no such key", "did you mean 'bus'?")),
    "an override of what is not there": line(
        "study.params.lr.stp=1", says=("study.params.lr.stp: no such key", "did you mean 'step'?")
    ),
    "deletion of what is not there": line(
        "~study.parms", says=("study.parms: Could not delete from config", "does not exist")
    ),
    "misspelt key of the worker in a file": Wrong(
        ("worker.slot: no such key", "did you mean 'slots'?", "in conf/worker/big.yaml, line 1"),
        ("worker=big",),
        files={"worker/big.yaml": "slot: 4\n"},
    ),
    "unknown key of the callbacks": line(
        "+callbacks.optuna.metric=a", says=("callbacks.optuna.metric", "'metric_name'?")
    ),
    # Groups and files
    "misspelt choice": line(
        "sampler=tep", says=("sampler: there is no 'tep'", "did you mean 'tpe'?")
    ),
    "misspelt study": line(
        "study=mien", says=("study: there is no 'mien'", "did you mean 'mine'?")
    ),
    "unknown trainer": line(
        "trainer=slurm", says=("trainer: there is no 'slurm'", "expected one of command, digits")
    ),
    "misspelt group": line(
        "prunner=median", says=("prunner: no such key", "did you mean 'pruner'?")
    ),
    "misspelt choice in a file": Wrong(
        ("pruner: there is no 'medain'", "did you mean 'median'?", "in conf/study/mine.yaml"),
        change=(
            "name: mine",
            "defaults: [{override /pruner@_global_.pruner: medain}, _self_]\nname: mine",
        ),
    ),
    "a folder that is not there": Wrong(
        ("--config-dir: 'cnof' is not a folder",), options=("--config-dir=cnof",)
    ),
    "a primary config that is not there": Wrong(
        ("--config-name: there is no 'cofnig'",), options=("--config-name=cofnig",)
    ),
    "YAML that does not parse": written(OBJECTIVE, "{metric: loss", "is not valid YAML", at=5),
    "a tab in YAML": written("  lr", "\tlr", "is not valid YAML", at=6),
    "the same key twice in YAML": written(
        "budget: 3",
        "n_trials: 3",
        "is not valid YAML: found duplicate key n_trials",
        at=3,
    ),
    "a file that is a list": Wrong(
        ("study/mine: is a list", "expected a mapping of keys", "in conf/study/mine.yaml"),
        change=(MINE, "- 1\n- 2\n"),
    ),
    "a file that is a text": Wrong(
        ("study.digits: no such key", "expected one of", "in conf/study/mine.yaml"),
        change=(MINE, "digits\n"),
    ),
    "an override that cannot be read": Wrong(
        ("command line: 'study.seed==3' cannot be read: extraneous input '='", "key=value"),
        ("study.seed==3",),
    ),
    "values to sweep over without -m": line(
        "study.seed=1,2", says=("study.seed: Ambiguous value", "--multirun")
    ),
    "an interpolation of what is not there": written(
        "budget: 3", "budget: ${epochs}", "study.budget: Interpolation key 'epochs' not found", at=3
    ),
    # Types and ranges
    "wrong type": written("n_trials: 4", "n_trials: many", "study.n_trials: 'many'", "whole", at=2),
    "a fraction of a trial": line(
        "study.n_trials=2.5", says=("study.n_trials: '2.5'", "whole number")
    ),
    "wrong type of a section": line(
        "bus.connect_s=soon", says=("bus.connect_s: 'soon' cannot be used", "expected a number")
    ),
    "wrong type of a switch": line(
        "bus.insecure=maybe",
        says=("bus.insecure: 'maybe' cannot be used", "expected true or false"),
    ),
    "wrong type of a bound": written(
        "high: 0.1", "high: much", "study.params.lr.high: Expected `float`", "'much'", at=6
    ),
    "no value where one is needed": Wrong(
        (
            "trainer.command: has no value yet (expected for example",
            "in trialbus_config/trainer/command.yaml, line 2",
        ),
        options=("--config-dir=conf", "study=mine", "trainer=command"),
    ),
    "no value in a file of one's own": written(
        "budget: 3", "budget: ???", "study.budget: has no value yet", at=3
    ),
    "no name": Wrong(
        ("study.name: has no value yet", "in conf/study/mine.yaml"), change=("name: mine\n", "")
    ),
    "a name without letters": written("name: mine", "name: ''", "study.name: is empty", at=1),
    "no param": written(
        f"  lr: {LR}\n  width: {{type: int, low: 16, high: 64}}\n",
        "  {}\n",
        "study.params: {} is not a search space",
        "at least one param",
    ),
    "no trials": line(
        "study.n_trials=0", says=("study.n_trials: 0 is below 1", "expected the total")
    ),
    "a negative budget": written("budget: 3", "budget: -3", "study.budget: -3 is below 1", at=3),
    "negative retries": line("study.max_retries=-1", says=("study.max_retries: -1 is below 0",)),
    "no time": line("study.timeout_s=0", says=("study.timeout_s: 0 is not above zero", "seconds")),
    "an end that a worker has not": line("worker.until=idle", says=("worker.until", "finished")),
    "a worker without trials": line("worker.max_trials=0", says=("worker.max_trials: 0 is below",)),
    "no time to idle": line("worker.idle_s=0", says=("worker.idle_s: 0 is not above",)),
    "no slots": line("worker.slots=0", says=("worker.slots: 0 is below 1",)),
    "negative patience with the hub": line(
        "bus.connect_s=-1", says=("bus.connect_s: -1 is below 0", "expected seconds")
    ),
    "no patience with a worker": line("worker.ttl_s=-1", says=("worker.ttl_s: -1 is not above",)),
    "too much patience with a worker": line(
        "worker.ttl_s=86401", says=("worker.ttl_s: 86401 is above a day",)
    ),
    "negative suggestions": line("optimizer.ahead=-1", says=("optimizer.ahead: -1 is below 0",)),
    "no time between records": line(
        "optimizer.record_every_s=0", says=("optimizer.record_every_s: 0 is not above zero",)
    ),
    # The search space
    "low above high": written(
        "low: 16, high: 64",
        "low: 640, high: 64",
        "study.params.width.low: 640 is above high 64",
        "expected low <= high",
        at=7,
    ),
    "log from zero": written(
        "low: 1.0e-5", "low: 0", "study.params.lr.low: 0 is not above zero", "with log=true", at=6
    ),
    "a step that does not divide": written(
        "high: 64",
        "high: 64, step: 10",
        "study.params.width.step: 10 does not divide high - low = 48",
        "high 56 or 66",
        at=7,
    ),
    "a step with log": written(
        "high: 64",
        "high: 64, step: 2, log: true",
        "width.step: 2 cannot be combined with log",
        at=7,
    ),
    "no choices": written(
        LR, "{type: categorical, choices: []}", "lr.choices: is empty", "at least one", at=6
    ),
    "a choice twice": written(
        LR, "{type: categorical, choices: [a, b, a]}", "lr.choices: has 'a' twice", at=6
    ),
    "unknown type of a param": written(
        "type: float", "type: flaot", "study.params.lr.type: 'flaot'", "did you mean 'float'?", at=6
    ),
    "a param without a bound": written(
        ", high: 0.1", "", "study.params.lr: Object missing required field `high`", at=6
    ),
    "a sweep that cannot be read": written(
        LR,
        '"intervall(0, 1)"',
        "study.params.lr: 'intervall(0, 1)' cannot be read",
        "expected",
        at=6,
    ),
    "a fixed param that is searched": written(
        "budget: 3", "fixed: {lr: 0.1}", "study.fixed.lr: 0.1 is searched too, by params.lr", at=3
    ),
    "enqueued out of range": written(
        "budget: 3", "enqueue: [{lr: 7}]", "study.enqueue[0].lr: 7 is outside of ", at=3
    ),
    "enqueued and unknown": written(
        "budget: 3",
        "enqueue: [{width: 32}, {rl: 7}]",
        "study.enqueue[1].rl: is not a param",
        "expected one of lr, width",
        at=3,
    ),
    "conditions in a circle": Wrong(
        ("study.params.width.when.depth", "forms a cycle: ", "does not depend", f"{FILE} 6"),
        change=(MINE, CIRCLE),
    ),
    "a condition on what is not a param": written(
        LR,
        "{type: float, low: 0, high: 1, when: {depth: 2}}",
        "study.params.lr.when.depth: is not a param",
        at=6,
    ),
    "a base config that is not there": line(
        "study.base_config=nowhere.yaml", says=("study.base_config", "nowhere.yaml")
    ),
    # Objectives and pruning
    "metrics and directions that differ in number": written(
        OBJECTIVE,
        "{metric: [loss, size], direction: minimize}",
        "study.objective.metric: Expected `str`, got `list`",
        "['loss', 'size']",
        at=4,
    ),
    "unknown direction": written(
        "minimize", "minimise", "study.objective.direction: 'minimise'", "'minimize'?", at=4
    ),
    "unknown aggregate": line(
        "+study.objective.aggregate=lats", says=("study.objective.aggregate: 'lats' is not one of",)
    ),
    "a pruner with several objectives": Wrong(
        ("study.prune_by: is missing", "one of loss, size", "in conf/study/mine.yaml"),
        change=(OBJECTIVE, "[{metric: loss}, {metric: size}]"),
    ),
    "a target of several objectives": Wrong(
        ("study.target: 1 needs one objective", "there are 2", f"{LINE}: study.target=1"),
        ("study.target=1", "pruner=none"),
        (OBJECTIVE, "[{metric: loss}, {metric: size}]"),
    ),
    "unknown policy": line(
        "study.nan=skip", says=("study.nan: 'skip'", "fail, ignore, prune, worst")
    ),
    "a constraint that cannot be read": line(
        "study.constraints=['loss < 3']", says=("study.constraints", "loss < 3")
    ),
    # Samplers and pruners
    "unknown argument of the sampler": line(
        "+sampler.n_startup_trails=3",
        says=("sampler.n_startup_trails: TPESampler has no such argument", "'n_startup_trials'?"),
    ),
    "unknown sampler": line(
        "sampler.type=TPESampelr", says=("sampler.type: 'TPESampelr'", "'TPESampler'?")
    ),
    "an argument that Optuna refuses": Wrong(
        ("pruner: PercentilePruner(percentile=200", "between 0 and 100", LINE, "percentile=200"),
        ("pruner=percentile", "pruner.percentile=200"),
    ),
    "a class that cannot be imported": Wrong(
        ("sampler.type: 'my.Sampler' cannot be imported", "in conf/sampler/my.yaml"),
        ("sampler=my",),
        files={"sampler/my.yaml": "_target_: my.Sampler\n"},
    ),
    "a pruner without a class": Wrong(
        ("pruner.type: missing in {'n_startup': 2}", "in conf/pruner/my.yaml"),
        ("pruner=my",),
        files={"pruner/my.yaml": "n_startup: 2\n"},
    ),
    "a grid of what has no steps": Wrong(
        ("study.params.lr: a grid needs choices or a step", f"{FILE} 6"), ("sampler=grid",)
    ),
    # What is to be run, and where
    "unknown way to hand params": line(
        "trainer.params_as=flag", says=("trainer.params_as: 'flag'", "did you mean 'flags'?")
    ),
    "a program that does not exist": line(
        "trainer.command=[pyhton,train.py]", says=("trainer.command: 'pyhton' is not a program",)
    ),
    "a script that does not exist": line(
        "trainer.command=[python,trian.py]", says=("trainer.command: there is no file 'trian.py'",)
    ),
    "a folder to run in that is not there": line(
        "trainer.cwd=nowhere", says=("trainer.cwd: 'nowhere' is not a folder",)
    ),
    "a function that is none": line(
        "trainer=function",
        "trainer.command=[]",
        "trainer.function=train",
        says=("trainer.function: 'train' is not module:function",),
    ),
    "a function of no module": line(
        "trainer=function",
        "trainer.command=[]",
        "trainer.function=my_trian:main",
        says=("trainer.function: 'my_trian:main': there is no module 'my_trian'",),
    ),
    "a command and a function": line(
        "trainer.function=a:b", says=("trainer", "has both a command and a function")
    ),
    "unknown sync": line(
        "bus.sync=always", says=("bus.sync: 'always'", "expected one of full, normal")
    ),
    "an endpoint that is none": line(
        "bus.endpoint=udp://x", says=("bus.endpoint: 'udp://x' is not ipc",)
    ),
    "an endpoint open to all": line(
        "bus.endpoint=tcp://0.0.0.0:5760",
        says=("bus.endpoint", "can be reached from other machines"),
    ),
    "a storage without its environment variable": Wrong(
        (
            "storage.url: needs the environment variable NO_SUCH_VARIABLE",
            "(expected it exported, or storage.url set)",
            "in conf/storage/team.yaml, line 1",
        ),
        ("storage=team",),
        files={"storage/team.yaml": "url: postgresql+psycopg://${oc.env:NO_SUCH_VARIABLE}@h/d\n"},
    ),
    "a notifier without its environment variable": Wrong(
        (
            "notify.slack.url: needs the environment variable SLACK_WEBHOOK_URL",
            "in trialbus_config/notify/slack.yaml, line 4",
        ),
        ("notify=slack",),
    ),
    "a bus in a folder that cannot be written": line(
        "bus.endpoint=tcp://127.0.0.1:5760",
        "bus.dir=/proc/x",
        says=("bus.dir: '/proc/x': No such file or directory in '/proc' (expected a folder",),
    ),
    "reports in a folder that cannot be written": line(
        "report.dir=/proc/reports",
        says=("report.dir: '/proc/reports': No such file or directory in '/proc'",),
    ),
    "a search path that is not there": line(
        "hydra.searchpath=[/no/such/folder]",
        says=(
            "hydra.searchpath: '/no/such/folder' does not exist (expected a folder of YAML files",
        ),
    ),
    "a package in the search path that is not there": line(
        "study=theirs",
        "hydra.searchpath=[pkg://no_such_package]",
        says=("hydra.searchpath: 'no_such_package' does not exist",),
    ),
    "a search path in the primary config that is not there": Wrong(
        ("hydra.searchpath: 'nowhere' does not exist", "in conf/main.yaml, line 3"),
        files={"main.yaml": ("defaults: [config, _self_]\nhydra:\n  searchpath:\n  - nowhere\n")},
        options=("--config-dir=conf", "--config-name=main", "study=mine", *TRAINER),
    ),
    "a study with a long name": written(
        "name: mine",
        f"name: {'x' * 201}",
        "study.name: 'xxxx",
        at=1,
    ),
    "a study with a long name in topics": line(
        f"study.name={'a/' * 51}",
        says=("has 204 characters (expected at most 200", "each '/', '*' and '%' counts as three"),
    ),
    "a study with a control character in the name": line(
        'study.name="a\nb"', says=("study.name: 'a\\nb' has a control character",)
    ),
    "an aggregation that is quoted once": Wrong(
        (
            "'study.objective.aggregate=mean_last(3)' cannot be read: Hydra has no function",
            """quoted twice, for the shell and for Hydra (expected 'study.objective.aggregate=""",
            """"mean_last(3)"')""",
        ),
        ("study.objective.aggregate=mean_last(3)",),
    ),
    "a search space that is quoted once": Wrong(
        (
            "study.params.lr: study.params.lr=interval(0,1) is a sweep of Hydra",
            "quoted twice, for the shell and for Hydra ",
            """(expected 'study.params.lr="interval(0,1)"')""",
        ),
        ("study.params.lr=interval(0,1)",),
    ),
    "keys that nobody made": Wrong(
        (
            "bus.keys.dir: '.trialbus/keys' has no service.key and no hub.pub",
            "`trialbus keys --dir .trialbus/keys init` makes",
            "bus/curve.yaml, line",
        ),
        ("bus=curve",),
    ),
    "a trial with more GPUs than the worker has": line(
        "worker.gpus=2",
        "worker.gpus_per_trial=4",
        says=("worker.gpus_per_trial: 4 is more than the number of GPUs of this worker, 2 by",),
    ),
    "a storage that is none": line("storage.url=oracel:///x", says=("storage.url: 'oracel:///x'",)),
    "a wrong key of a section that is null": line(
        "study.prune_by.metrik=loss", says=("study.prune_by.metrik: no such key; did you mean",)
    ),
    "a storage in no folder": line(
        "storage.url=sqlite:///no/such/study.db",
        says=("storage.url", "there is no folder 'no/such'"),
    ),
    "a storage that is a folder": line(
        "storage.url=sqlite:///conf",
        says=("storage.url", "is not a file that can be read and written"),
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_config_is_answered_with_file_key_value_and_expectation(
    wrong: Wrong,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = wrong.change
    assert old in MINE
    files = {"study/mine.yaml": MINE.replace(old, new) if old else MINE} | wrong.files
    for name, text in files.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.delenv("SLACK_WEBHOOK_URL", raising=False)
    before = psutil.Process().children()  # of other tests, a browser for example
    code = cli.main(["study", "--dry-run", *wrong.options, *wrong.overrides])
    printed = capsys.readouterr()
    print(printed.err)
    assert code == 2
    assert printed.out == ""
    for part in wrong.says:
        assert part in printed.err
    assert len(printed.err.splitlines()) <= 3, "more than a message"
    assert [path.name for path in tmp_path.iterdir()] == ["conf"], "a file was made"
    assert psutil.Process().children() == before, "a process was started"


def test_the_config_that_the_wrong_ones_are_made_of_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(MINE)
    assert cli.main(["study", "--dry-run", "--config-dir=conf", "study=mine", *TRAINER]) == 0
    assert "python -c pass" in capsys.readouterr().out
    assert len(WRONG) >= 40


@pytest.mark.parametrize(
    "override",
    [
        'study.objective.aggregate="mean_last(3)"',
        'study.params.lr="interval(0,1)"',
    ],
)
def test_a_text_that_is_quoted_as_the_error_says_is_accepted(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "--dry-run", override]) == 0


@pytest.mark.parametrize(
    "override", ["study.prune_by.metric=loss", "study.prune_by={metric: loss}", "bus.keys={dir: k}"]
)
def test_a_section_that_is_null_may_be_set_on_the_command_line(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with compose_config([override]) as composed:
        key, _, text = override.partition("=")
        assert OmegaConf.select(composed.config, key) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("function", "problem"), [("fn:man", "did you mean 'main'?"), ("bad:main", "ValueError: no")]
)
def test_a_dry_run_imports_the_function_as_the_worker_does(
    function: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fn.py").write_text("def main(trial): pass\n")
    (tmp_path / "bad.py").write_text("raise ValueError('no')\n")
    overrides = ["trainer=function", f"trainer.function={function}"]
    assert cli.main(["study", "--dry-run", *overrides]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: trainer.function: '{function}'")
    assert problem in error
    assert LINE in error
    assert cli.main(["study", "--dry-run", "trainer=function", "trainer.function=fn:main"]) == 0
    assert not (tmp_path / ".trialbus").exists(), "a file was left"


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("n_trials=3", "n_trials: no such key; did you mean 'study.n_trials'?"),
        ("study.sampler=random", "study.sampler: no such key; did you mean 'sampler'?"),
        ("study.params.lrr.low=0", "study.params.lrr.type: missing in {'low': 0}"),
        ("study.params.lrr.low=0", "did you mean the param 'lr'?"),
        ("+foo=1", "foo: nothing reads this key"),
        ("--experimental-rerun=x.pickle", "--experimental-rerun: 'x.pickle': a study is run"),
    ],
)
def test_a_setting_in_the_wrong_place_is_answered_with_the_right_place(
    override: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "--dry-run", override, *TRAINER]) == 2
    assert text in capsys.readouterr().err


def test_a_key_of_one_s_own_is_taken_where_the_config_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "--dry-run", "+n=7", "study.n_trials=${n}", *TRAINER]) == 0


def test_what_a_chosen_config_leaves_open_may_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notifier = ["notify=[webhook]", "notify.webhook.url=http://x", "+notify.webhook.headers={A: b}"]
    assert cli.main(["study", "--dry-run", *notifier, *TRAINER]) == 0


def test_a_param_with_dots_in_its_name_is_changed_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "study:\n  name: mine\n  n_trials: 3\n  objective: {metric: loss}\n"
        "  params:\n    optim.lr: {type: float, low: 0, high: 1}\n"
        "    width: {type: int, low: 1, high: 2}\n"
    )
    override = "study.params.optim.lr.low=0.5"
    assert cli.main(["study", "mine.yaml", "--dry-run", override, *TRAINER]) == 0
    printed = capsys.readouterr().out
    assert "optim.lr: {type: float, low: 0.5, high: 1.0}" in printed
    assert "(2 params)" in printed

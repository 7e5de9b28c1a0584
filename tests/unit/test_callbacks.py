"""Callbacks of a training: the order of calls, the reports, and the configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

import trialbus
from support.until import until
from trialbus.callbacks import (
    CallbackConfig,
    CallbackFactory,
    Callbacks,
    EvaluationCallback,
    OptunaCallback,
    OptunaCallbackConfig,
)
from trialbus.callbacks.factory import ALLOWED_VARIABLE
from trialbus.testing import TestBus


class Recorder(EvaluationCallback):
    """A callback that records calls and fails in a chosen hook."""

    def __init__(self, name: str = "recorder", fails: str = "") -> None:
        self.name = name
        self.calls: list[str] = []
        self._fails = fails

    def _note(self, hook: str) -> None:
        self.calls.append(hook)
        if hook == self._fails:
            raise RuntimeError(hook)

    def on_train_start(self) -> None:
        self._note("start")

    def on_evaluation_complete(self, event: trialbus.EvaluationComplete) -> None:
        self._note(f"evaluation {event.step}")

    def on_error(self, error: BaseException) -> None:
        self._note(f"error {type(error).__name__}")

    def on_train_end(self) -> None:
        self._note("end")


class Pruner(EvaluationCallback):
    def on_evaluation_complete(self, event: trialbus.EvaluationComplete) -> None:
        raise trialbus.TrialPruned


class WithTrial(Recorder):
    def __init__(self, trial: trialbus.Trial | None, extra: int = 0) -> None:
        super().__init__("with-trial")
        self.trial = trial
        self.extra = extra


@pytest.fixture
def bus() -> Iterator[TestBus]:
    with TestBus() as bus:
        yield bus


@pytest.fixture
def trial(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> Iterator[trialbus.Trial]:
    bus.assign(monkeypatch.setenv, params={"lr": 0.5}, budget=9)
    with trialbus.attach() as trial:
        yield trial


def list_reports(bus: TestBus, trial: trialbus.Trial) -> list[tuple[int, dict[str, float]]]:
    trial.__exit__(None, None, None)
    return [(e.step, e.metrics) for e in bus.events(trialbus.EvaluationComplete)]


def test_importing_the_callbacks_imports_no_training_library() -> None:
    libraries = {"torch", "lightning", "transformers", "stable_baselines3", "lightgbm", "hydra"}
    code = (
        "import sys, trialbus.callbacks, trialbus.callbacks.lightgbm;"
        f"print(sorted({libraries!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"


def test_every_hook_of_every_callback_is_called_in_order() -> None:
    first, second = Recorder("first"), Recorder("second")
    with Callbacks([first, second]) as callbacks:
        callbacks.report(0, {"loss": 1})
        callbacks.on_step(1)
        callbacks.report(1, {"loss": {"train": 1}})
    assert first.calls == second.calls == ["start", "evaluation 0", "evaluation 1", "end"]


def test_a_failing_callback_stops_neither_other_callbacks_nor_the_training(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing, other = Recorder("failing", fails="evaluation 0"), Recorder("other")
    with Callbacks([failing, other]) as callbacks:
        callbacks.report(0, {"loss": 1})
        callbacks.report(1, {"loss": 1})
    assert failing.calls == other.calls == ["start", "evaluation 0", "evaluation 1", "end"]
    assert "callback 'failing' failed in on_evaluation_complete" in caplog.text


def test_an_essential_callback_that_fails_ends_the_training() -> None:
    failing = Recorder("failing", fails="evaluation 0")
    failing.essential = True
    with pytest.raises(RuntimeError, match="evaluation 0"), Callbacks([failing]) as callbacks:
        callbacks.report(0, {"loss": 1})
    assert failing.calls == ["start", "evaluation 0", "error RuntimeError", "end"]


def test_a_prune_reaches_the_training_after_every_callback_and_is_no_error() -> None:
    after = Recorder()
    with pytest.raises(trialbus.TrialPruned), Callbacks([Pruner(), after]) as callbacks:
        callbacks.report(0, {"loss": 1})
    assert after.calls == ["start", "evaluation 0", "end"]


def test_callbacks_are_switched_off_and_on_by_name() -> None:
    recorder = Recorder()
    callbacks = Callbacks([recorder])
    callbacks.enable("recorder", enabled=False)
    callbacks.report(0, {"loss": 1})
    callbacks.enable("recorder")
    callbacks.report(1, {"loss": 1})
    assert recorder.calls == ["evaluation 1"]
    with pytest.raises(KeyError, match=r"no callback is called 'x', there are \['recorder'\]"):
        callbacks.enable("x")
    with pytest.raises(ValueError, match="two callbacks are called 'recorder'"):
        callbacks.add(Recorder())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [(0, 3.0), (1, 5.0), (2, 4.0), (3, 1.0)]),
        ({"report_interval": 2}, [(0, 3.0), (2, 4.0)]),
        ({"use_best_value": True}, [(0, 3.0), (1, 5.0), (2, 5.0), (3, 5.0)]),
        (
            {"use_best_value": True, "direction": "minimize"},
            [(0, 3.0), (1, 3.0), (2, 3.0), (3, 1.0)],
        ),
        ({"use_best_value": True, "report_interval": 3}, [(0, 3.0), (3, 5.0)]),
    ],
    ids=["all", "every second", "best", "lowest", "best of those between"],
)
def test_the_optuna_callback_reports_its_metric_as_configured(
    bus: TestBus,
    trial: trialbus.Trial,
    config: dict[str, Any],
    expected: list[tuple[int, float]],
) -> None:
    factory = CallbackFactory({"optuna": {"metric_name": "reward", **config}})
    with factory.build(trial) as callbacks:
        for step, value in enumerate([3.0, 5.0, 4.0, 1.0]):
            callbacks.report(step, {"reward": value, "length": 7})
    assert list_reports(bus, trial) == [(step, {"reward": value}) for step, value in expected]


def test_without_a_metric_name_the_optuna_callback_reports_all_metrics(
    bus: TestBus, trial: trialbus.Trial
) -> None:
    Callbacks([OptunaCallback(trial)], trial).report(4, {"val": {"loss": 2}, "lr": 1})
    assert list_reports(bus, trial) == [(4, {"val/loss": 2.0, "lr": 1.0})]


def test_a_value_of_nan_never_hides_the_best_value(bus: TestBus, trial: trialbus.Trial) -> None:
    callback = OptunaCallback(trial, OptunaCallbackConfig(metric_name="r", use_best_value=True))
    callbacks = Callbacks([callback], trial)
    for step, value in enumerate([float("nan"), 2.0, float("nan"), 1.0]):
        callbacks.report(step, {"r": value})
    assert [metrics["r"] for _, metrics in list_reports(bus, trial)][1:] == [2.0, 2.0, 2.0]


def test_a_missing_metric_ends_the_training_and_the_error_lists_the_metrics(
    trial: trialbus.Trial,
) -> None:
    callbacks = CallbackFactory({"optuna": {"metric_name": "rewrd"}}).build(trial)
    with pytest.raises(KeyError, match=r"'rewrd' is not in the evaluation at step 0.*'reward'"):
        callbacks.report(0, {"reward": 1.0})


def test_a_prune_command_is_raised_through_the_callbacks(
    bus: TestBus, trial: trialbus.Trial
) -> None:
    bus.prune()
    callbacks = CallbackFactory().build(trial)
    with pytest.raises(trialbus.TrialPruned):
        until(lambda: callbacks.report(0, {"loss": 1.0}))


def test_the_factory_builds_a_user_s_callbacks_from_a_hydra_config(
    trial: trialbus.Trial,
) -> None:
    config = OmegaConf.merge(
        OmegaConf.structured(CallbackConfig),
        {
            "optuna": {"enabled": False},
            "others": {
                "mine": {"_target_": f"{__name__}.WithTrial", "extra": 3},
                "off": {"_target_": "no.such.Class", "enabled": False},
            },
        },
    )
    assert isinstance(config, DictConfig)
    optuna, mine = CallbackFactory(config).build(trial)
    assert not optuna.enabled
    assert isinstance(mine, WithTrial)
    assert (mine.name, mine.trial, mine.extra) == ("mine", trial, 3)


@pytest.mark.parametrize(
    ("allowed", "is_built"),
    [(None, False), ("", False), ("other", False), ("support,evil", True), ("evil.Mark", True)],
)
def test_a_callback_that_a_study_names_is_imported_only_from_allowed_modules(
    bus: TestBus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: str | None,
    is_built: bool,
) -> None:
    (tmp_path / "evil.py").write_text(
        "import pathlib, trialbus.callbacks\n"
        "pathlib.Path('imported').touch()\n"
        "class Mark(trialbus.callbacks.EvaluationCallback): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    if allowed is not None:
        monkeypatch.setenv(ALLOWED_VARIABLE, allowed)
    named: dict[str, Any] = {"others": {"mine": {"_target_": "evil.Mark"}}}
    bus.assign(monkeypatch.setenv, params={}, config={"callbacks": named})
    with trialbus.attach() as trial:
        factory = CallbackFactory(trial.config.nested()["callbacks"])
        if is_built:
            assert [callback.name for callback in factory.build(trial)][-1] == "mine"
        else:
            advice = r"evil.Mark.*worker.allowed_modules=\[evil\]"
            with pytest.raises(trialbus.SpecError, match=advice):
                factory.build(trial)
    assert (tmp_path / "imported").exists() is is_built


def test_without_a_trial_the_factory_builds_no_optuna_callback() -> None:
    callbacks = CallbackFactory({"optuna": {"metric_name": "reward"}}).build()
    assert list(callbacks) == []
    callbacks.report(0, {"loss": 1.0})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"optunas": {}}, "callbacks.optunas: no such key; did you mean 'optuna'"),
        (
            {"optuna": {"metric": "a"}},
            "callbacks.optuna.metric: no such key; .*'metric_name'",
        ),
        ({"optuna": {"report_interval": 0}}, "callbacks.optuna: report_interval 0 is below 1"),
        ({"optuna": {"direction": "up"}}, "direction 'up' is unknown .expected maximize"),
        ({"optuna": {"use_best_value": True}}, "use_best_value: needs metric_name"),
        ({"others": {"a": {}}}, "callbacks.others.a._target_: None is not an import path"),
        ({"others": {"a": {"_target_": "no.Such"}}}, "'no.Such' cannot be imported"),
        (
            {"others": {"a": {"_target_": "os.path"}}},
            "'os.path' is not a subclass of trialbus's EvaluationCallback",
        ),
        (
            {"others": {"a": {"_target_": f"{__name__}.WithTrial", "color": 1}}},
            "callbacks.others.a: .*color",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_the_error_for_a_wrong_config_names_the_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(trialbus.SpecError, match=message):
        CallbackFactory(config).build()

"""A trial that ran several times has one curve: in memory, in the database and for the pruner."""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import optuna
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from support.simulated_bus import SimulatedBus
from trialbus import Component
from trialbus.messages import events
from trialbus.study.spec import PruneBy
from trialbus_services.optimizer.allowed_modules import AllowedModules
from trialbus_services.optimizer.registry import build_pruner
from trialbus_services.optimizer.storage_writer import table_schema

_N_EXAMPLES = 12
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # shrinking takes minutes
VALUES = (0.0, 0.25, 0.5, 1.0, 2.0, math.nan)
STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}

Curve: TypeAlias = dict[int, float]


@dataclass(frozen=True)
class Report:
    """A trainer reports; with `step=None` the step after the last one of the attempt."""

    slot: int
    value: float
    step: int | None = None


@dataclass(frozen=True)
class Lose:
    """An attempt is given up; with `is_late` its trainer reports once more."""

    slot: int
    how: str = "lost"
    is_late: bool = False


@dataclass(frozen=True)
class End:
    slot: int
    state: events.TrialState


@dataclass(frozen=True)
class Restart:
    """The optimizer is killed; with `is_recorded` the database has what it knew."""

    is_recorded: bool = True


Action: TypeAlias = Report | Lose | End | Restart


@dataclass
class ModelTrial:
    """The rule in plain words: an attempt takes over what lies before its first step."""

    curve: Curve = field(default_factory=dict[int, float])
    attempt: int = 0
    state: TrialState = TrialState.RUNNING

    def report(self, attempt: int, step: int, value: float) -> None:
        if attempt > self.attempt:
            self.attempt = attempt
            self.curve = {s: v for s, v in self.curve.items() if s < step}
        self.curve[step] = value


class Story:
    """A study with two slots, played by an optimizer's loop and by a plain model."""

    def __init__(self, database: BaseStorage, pruner: Component, **changes: Any) -> None:
        self.bus = SimulatedBus(database, AllowedModules([__name__]))
        self.pruner = pruner
        self.trials: dict[int, ModelTrial] = {}
        #: Decisions of Optuna's own pruner on the model, by trial and attempt.
        self.decisions: dict[tuple[int, int], int] = {}
        self._assigned: dict[int, events.TrialAssigned] = {}
        self._steps: dict[int, int] = {}
        self._n_requests = 0
        retries: dict[str, int] = {"lost": 1000, "preempted": 1000}
        changes |= {"n_trials": 1000, "max_failures": None, "retries": retries}
        self.bus.submit(pruner=pruner, **changes)

    def play(self, actions: list[Action], *, with_restarts: bool = True) -> None:
        for action in actions:
            match action:
                case Report():
                    self._report(action)
                case Lose() if action.slot in self._assigned:
                    self._lose(action)
                case End() if action.slot in self._assigned:
                    self._end(action)
                case Restart() if with_restarts:
                    if action.is_recorded:
                        assert self.bus.storage.flush(20)
                    self.bus.start()
                    self.bus.turn()
                case _:
                    pass

    def find_prunes(self) -> dict[tuple[int, int], int]:
        """Return the step of the first prune command of each attempt."""
        prunes: dict[tuple[int, int], int] = {}
        for prune in self.bus.log.select(events.Prune):
            prunes.setdefault((prune.trial, prune.attempt), prune.step)
        return prunes

    def _report(self, action: Report) -> None:
        slot = action.slot
        if slot not in self._assigned:
            self._n_requests += 1
            self._assigned[slot] = self.bus.request(f"r{self._n_requests}", session=f"w{slot}")
            self._steps[slot] = -1
        assigned = self._assigned[slot]
        self._steps[slot] = self._steps[slot] + 1 if action.step is None else action.step
        step = self._steps[slot]
        self.bus.turn(evaluate(assigned, step, action.value))
        trial = self.trials.setdefault(assigned.trial, ModelTrial())
        trial.report(assigned.attempt, step, action.value)
        if ask_optuna(self.pruner, self.trials, assigned.trial):
            self.decisions.setdefault((assigned.trial, assigned.attempt), step)

    def _lose(self, action: Lose) -> None:
        assigned = self._assigned.pop(action.slot)
        of: dict[str, Any] = {"study": "s", "trial": assigned.trial, "attempt": assigned.attempt}
        if action.how == "lost":
            self.bus.turn(events.TrainerLost(session="t", kind="trainer", **of))
        else:
            self.bus.turn(events.TrialFinished(state="preempted", **of))
        if action.is_late:
            self.bus.turn(evaluate(assigned, 50, 7.0))

    def _end(self, action: End) -> None:
        assigned = self._assigned.pop(action.slot)
        self.bus.turn(
            events.TrialFinished(
                study="s", trial=assigned.trial, attempt=assigned.attempt, state=action.state
            )
        )
        trial = self.trials.setdefault(assigned.trial, ModelTrial())
        trial.state = STATES[action.state]
        if trial.state is TrialState.COMPLETE and not (
            trial.curve and math.isfinite(trial.curve[max(trial.curve)])
        ):
            trial.state = TrialState.FAIL


def evaluate(assigned: events.TrialAssigned, step: int, value: float) -> events.EvaluationComplete:
    return events.EvaluationComplete(
        study="s",
        trial=assigned.trial,
        attempt=assigned.attempt,
        step=step,
        metrics={"loss": value},
    )


def ask_optuna(pruner: Component, trials: dict[int, ModelTrial], number: int) -> bool:
    """Return whether Optuna's pruner prunes a trial of a study that has the model's curves."""
    study = optuna.create_study(pruner=build_pruner(pruner))
    for _, trial in sorted(trials.items()):
        study.add_trial(
            create_trial(
                state=trial.state,
                value=0.0 if trial.state is TrialState.COMPLETE else None,
                intermediate_values=trial.curve,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return study.pruner.prune(study, study.trials[sorted(trials).index(number)])


def read_curves(trials: list[FrozenTrial]) -> dict[int, tuple[TrialState, Curve]]:
    return {
        trial.number: (trial.state, dict(sorted(trial.intermediate_values.items())))
        for trial in trials
        if trial.intermediate_values or trial.state.is_finished()
    }


def check_curves(story: Story) -> None:
    """Check that memory and database have what the model has."""
    expected = {
        number: (trial.state, dict(sorted(trial.curve.items())))
        for number, trial in story.trials.items()
    }
    memory = story.bus.storage
    in_memory = memory.get_all_trials(memory.get_study_id_from_name("s"))
    assert repr(read_curves(in_memory)) == repr(expected)
    assert repr(read_curves(story.bus.trials())) == repr(expected)
    for trial in story.bus.trials():
        curve = trial.intermediate_values
        if trial.state is TrialState.COMPLETE:
            assert trial.values == [curve[max(curve)]]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RDBStorage]:
    """A SQLite database for all stories, which spares each the creation of tables."""
    storage = RDBStorage(f"sqlite:///{tmp_path_factory.mktemp('stories')}/studies.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_schema, "load_tables", lru_cache(table_schema.load_tables))
        yield storage
    storage.remove_session()
    storage.engine.dispose()


@contextmanager
def open_story(database: RDBStorage, pruner: Component, **changes: Any) -> Generator[Story]:
    """Play a story in an empty database, and check the curves at the end."""
    for study in optuna.get_all_study_names(database):
        optuna.delete_study(study_name=study, storage=database)
    story = Story(database, pruner, **changes)
    yield story
    check_curves(story)
    story.bus.loop.close(20)


def actions() -> st.SearchStrategy[list[Action]]:
    slots = st.integers(0, 1)
    values = st.sampled_from(VALUES)
    steps = st.one_of(st.none(), st.none(), st.integers(0, 8))
    report = st.builds(Report, slots, values, steps)
    lose = st.builds(Lose, slots, st.sampled_from(["lost", "preempted"]), st.booleans())
    end = st.builds(End, slots, st.sampled_from(["complete", "complete", "pruned", "failed"]))
    restart = st.builds(Restart, st.booleans())
    return st.lists(
        st.one_of(report, report, report, report, lose, end, restart), min_size=4, max_size=40
    )


class DivisiblePruner(BasePruner):
    """A pruner of a user, which reads the trial and the trials that ended."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        n_complete = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        return sum(trial.intermediate_values) % 3 == n_complete % 3


LOST_AFTER_EIGHT: list[Action] = [
    *(Report(0, 1.0) for _ in range(8)),
    Lose(0),
    *(Report(0, 0.5, step) for step in (0, 1, 2)),
    End(0, "pruned"),
]


@pytest.mark.parametrize(
    "pruner",
    [
        Component(type="MedianPruner", args={"n_startup_trials": 1}),
        Component(type="PercentilePruner", args={"percentile": 25.0, "n_startup_trials": 0}),
        Component(type="ThresholdPruner", args={"upper": 1.5, "interval_steps": 2}),
        Component(type="PatientPruner", args={"wrapped_pruner": None, "patience": 1}),
    ],
    ids=lambda pruner: pruner.type,
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_attempts_and_restarts_leave_the_curves_of_the_model_and_the_decisions_of_optuna(
    pruner: Component, database: RDBStorage
) -> None:
    @settings(max_examples=_N_EXAMPLES, deadline=None, phases=PHASES)
    @given(actions())
    @example([*LOST_AFTER_EIGHT[:-1], Restart(False), *LOST_AFTER_EIGHT[-2:]])
    def play(history: list[Action]) -> None:
        with open_story(database, pruner) as story:
            story.play(history)
            assert story.find_prunes() == story.decisions

    play()


LOST_AND_RESTARTED: list[Action] = [
    *(Report(0, math.nan, 4), Report(0, 0.25), Lose(0, "preempted", True), Report(0, 2.0)),
    *(Restart(False), End(0, "failed"), Report(0, 1.0, 2)),
]


@pytest.mark.parametrize(
    "pruner",
    [
        Component(type="SuccessiveHalvingPruner", args={"min_resource": 1, "reduction_factor": 2}),
        Component(
            type="HyperbandPruner",
            args={"min_resource": 1, "max_resource": 8, "reduction_factor": 2},
        ),
        Component(type=f"{__name__}.DivisiblePruner"),
    ],
    ids=lambda pruner: pruner.type.rpartition(".")[2],
)
@pytest.mark.parametrize("judged", ["objective", "another metric"])
def test_a_restart_changes_no_decision(
    pruner: Component, judged: str, database: RDBStorage
) -> None:
    changes: dict[str, Any] = {}
    if judged == "another metric":
        changes["prune_by"] = PruneBy(metric="loss", direction="maximize")

    @settings(max_examples=_N_EXAMPLES, deadline=None, phases=PHASES)
    @given(actions())
    @example(LOST_AND_RESTARTED)
    def play(history: list[Action]) -> None:
        prunes: list[dict[tuple[int, int], int]] = []
        for with_restarts in (True, False):
            with open_story(database, pruner, **changes) as story:
                story.play(history, with_restarts=with_restarts)
                prunes.append(story.find_prunes())
        assert prunes[0] == prunes[1]

    play()

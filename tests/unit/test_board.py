"""A browser's incremental changes add up to the full state."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

import trialbus
from trialbus.messages import events
from trialbus_services.monitor.board import BEGINNING, Board, Json

SPEC = trialbus.StudySpec(
    name="s",
    params={"x": trialbus.FloatParam(low=0, high=1)},
    objectives=(trialbus.Objective(metric="m"),),
    n_trials=10,
)


def event(kind: str, trial: int, attempt: int, step: int, value: float) -> trialbus.Event:
    of: dict[str, Any] = {"study": "s", "trial": trial, "attempt": attempt}
    who = f"{trial}.{attempt}"
    return {
        "assign": lambda: trialbus.TrialAssigned(request=who, session=who, params={"x": 0.5}, **of),
        "evaluate": lambda: trialbus.EvaluationComplete(step=step, metrics={"m": value}, **of),
        "prune": lambda: trialbus.Prune(step=step, reason="flat", **of),
        "lose": lambda: trialbus.TrainerLost(session=who, kind="worker"),
        "withdraw": lambda: trialbus.RequestWithdrawn(request=who),
        "pause": lambda: trialbus.Pause(study="s"),
        "complete": lambda: trialbus.TrialFinished(state="complete", **of),
        "pruned": lambda: trialbus.TrialFinished(state="pruned", **of),
        "failed": lambda: trialbus.TrialFinished(state="failed", error="a\nb", **of),
        "preempted": lambda: trialbus.TrialFinished(state="preempted", **of),
        "close": lambda: trialbus.TrialClosed(state="complete", values=[value], **of),
    }[kind]()


KINDS = (
    "assign evaluate evaluate evaluate prune lose withdraw pause complete pruned failed preempted "
    "close"
)

EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(KINDS.split()),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 5),
        st.sampled_from([0.1, 0.2, math.nan, math.inf]),
    ),
    max_size=40,
)


def drop_impossible(history: list[trialbus.Event]) -> list[trialbus.Event]:
    """Return a history without repeated assignments of an attempt.

    An attempt is assigned before anything else happens to it, and never again.
    """
    newest: dict[int, int] = {}
    possible: list[trialbus.Event] = []
    for happened in history:
        if isinstance(happened, trialbus.TrialEvent):
            known = newest.get(happened.trial, -1)
            if isinstance(happened, trialbus.TrialAssigned) and happened.attempt <= known:
                continue
            newest[happened.trial] = max(known, happened.attempt)
        possible.append(happened)
    return possible


class Browser:
    """The state that the page's script builds from messages."""

    def __init__(self) -> None:
        self.rows: dict[int, Json] = {}
        self.curves: dict[int, list[list[float]]] = {}
        self.events: list[int] = []
        self.offset = BEGINNING

    def take(self, board: Board) -> None:
        if board.changed == self.offset:
            return
        changes = board.get_changes(self.offset)
        if changes["full"]:
            self.rows, self.curves, self.events = {}, {}, []
        for row in reversed(changes["trials"]):
            old = self.rows.get(row["number"], {})
            if row.get("attempt", old.get("attempt")) != old.get("attempt"):
                old = {}
                self.curves[row["number"]] = []
            self.rows[row["number"]] = old | row
        for trial, attempt, step, value in changes["points"]:
            assert attempt == self.rows[trial]["attempt"] or changes["trials"]
            curve = self.curves[trial]
            if attempt == self.rows[trial]["attempt"] and (not curve or curve[-1][0] < step):
                curve.append([step, value])
        self.events += [event["offset"] for event in changes["events"]]
        self.offset = board.changed


@given(EVENTS, st.sets(st.integers(0, 40)))
@example(
    [
        event("assign", 0, 0, 0, 0.1),
        event("evaluate", 0, 0, 1, 0.1),
        event("evaluate", 0, 1, 1, 0.1),
    ],
    set(),
)
def test_a_browser_that_comes_now_and_then_ends_where_a_new_one_begins(
    happened: list[trialbus.Event], looks: set[int]
) -> None:
    board = Board("s", now=lambda: 0.0)
    board.apply(trialbus.StudySubmitted(study="s", spec=SPEC, submission="1", at=0.0), 0)
    often, once = Browser(), Browser()
    for offset, happening in enumerate(drop_impossible(happened), 1):
        board.apply(happening, offset)
        if offset in looks:
            often.take(board)
    often.take(board)
    once.take(board)
    assert (often.rows, often.curves, often.events) == (once.rows, once.curves, once.events)


def test_whoever_was_away_for_more_than_is_kept_is_told_to_begin_anew(monkeypatch: Any) -> None:
    monkeypatch.setattr("trialbus_services.monitor.board._MAX_POINTS", 5)
    board = Board("s", now=lambda: 0.0)
    board.apply(trialbus.StudySubmitted(study="s", spec=SPEC, submission="1"), 0)
    board.apply(event("assign", 0, 0, 0, 0.0), 1)
    for step in range(10):
        board.apply(event("evaluate", 0, 0, step, 0.1), 2 + step)
    assert not board.get_changes(8)["full"]
    assert len(board.get_changes(8)["points"]) == 3
    behind = board.get_changes(3)
    assert behind["full"]
    assert len(behind["points"]) == 10


def test_params_that_trainings_ask_for_are_in_the_row_and_in_the_space_of_the_page() -> None:
    board = Board("s")
    spec = trialbus.StudySpec(
        name="s",
        params={},
        define_by_run=True,
        objectives=(trialbus.Objective(metric="loss"),),
        n_trials=1,
    )
    param = trialbus.FloatParam(low=0, high=1)
    history: list[trialbus.Event] = [
        trialbus.StudySubmitted(study="s", submission="1", spec=spec),
        trialbus.TrialAssigned(study="s", trial=0, request="r", session="w", params={}),
        events.ParamRequested(study="s", trial=0, name="x", param=param, answer=False, value=0.5),
        events.ParamRequested(study="s", trial=0, name="y", param=param),
        events.ParamSuggested(study="s", trial=0, name="y", value=0.25),
        events.ParamSuggested(study="s", trial=0, name="z", error="of another kind"),
    ]
    for offset, event in enumerate(history):
        board.apply(event, offset)
    changes = board.get_changes(1)
    assert changes["trials"][0]["params"] == {"x": 0.5, "y": 0.25}
    assert changes["params"]["y"] == {"type": "float", "low": 0.0, "high": 1.0}
    assert list(changes["params"]) == ["x", "y"]

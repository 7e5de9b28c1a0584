"""StudySimulation: studies of a real optimizer's loop behind a real hub, with workers that die."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

import trialbus
from simulation.hub_process import HubProcess
from simulation.log_model import LogModel, Row
from simulation.network import Network, SimulatedLink
from simulation.study_clients import Host, OptimizerProcess, SimulatedPublisher, WorkerProcess
from simulation.world import World
from trialbus.hub.hub import Hub
from trialbus.messages import codec, events
from trialbus.messages.hand_outs import HandOuts

_N_WORKERS = 3
_STUDIES = ("s1", "s2")
_N_TRIALS = 6
_FAULT_S = 0.6
_CALM_S = 400.0
_MISSING = -1


class StudySimulation:
    """One simulation of two studies.

    Args:
        seed: Determines everything that happens.
        directory: An empty folder for the log.
        hub_class: The hub; a control has another.
    """

    def __init__(self, seed: int, directory: Path, hub_class: type[Hub] = Hub) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        self.model = LogModel(self.world, directory, checks_accepted=False)
        self.hub = HubProcess(
            self.world,
            self.network,
            directory,
            after_turn=self._check_turn,
            hub_class=hub_class,
        )
        self._host = Host()  # of the workers
        self._optimizer_host = Host()
        self._database = InMemoryStorage()
        self._n_started = 0
        self._events: list[tuple[int, events.AnyEvent]] = []
        #: Request of each attempt that was handed out, and attempt of each request.
        self._requests: dict[tuple[str, int, int], str] = {}
        self._attempts: dict[str, tuple[str, int, int]] = {}
        self._hand_outs = HandOuts()
        self._void: set[tuple[str, int, int, str]] = set()
        #: Number of the worker that has begun each attempt.
        self._begun: dict[tuple[str, int, int], int] = {}
        self._finished: dict[str, str] = {}
        self._submitter = SimulatedLink(self.network)
        self._commands = SimulatedPublisher(self._submitter, self._host, b"submitter")
        self._optimizer = self._start_optimizer()
        self._workers = [self._start_worker() for _ in range(_N_WORKERS)]
        for name in _STUDIES:
            self._submit(name)
        self.world.call_in(0.5, self._restart_dead)

    def run(self, rough_s: float) -> None:
        """Simulate a time with faults and the time until both studies have ended.

        Raises:
            Violation: A guarantee was broken.
        """
        world = self.world
        end = world.now + rough_s
        world.call_in(world.seconds(0, _FAULT_S), self._inflict)
        while world.now < end and not self._is_at_rest():
            world.step()
        world.is_calm = True
        self.hub.disk.calm_down()
        self._optimizer.storage.fails_until = 0.0
        while world.now < end + _CALM_S and not self._is_at_rest():
            for _ in range(50):
                world.step()
        self._check_rest()

    def close(self) -> None:
        """End the hub and close the files."""
        if self.hub.hub is not None:
            self.hub.hub.close()
        self.model.close()

    def _inflict(self) -> None:
        world = self.world
        if world.is_calm:
            return
        fault: Callable[[], str] = world.random.choice(
            [
                self._crash_hub,
                self._crash_hub_in_turn,
                self._fail_disk,
                self._kill_optimizer,
                self._pause_optimizer,
                self._fail_storage,
                self._kill_worker,
                self._kill_worker,
                self._pause_worker,
                self._break_connection,
                self._cut_off,
                self._request_for_nobody,
            ]
        )
        world.count_fault(fault())
        world.call_in(world.seconds(0, _FAULT_S), self._inflict)

    def _crash_hub(self) -> str:
        self.hub.crash(self.world.seconds(0, 3))
        return "hub crashed"

    def _crash_hub_in_turn(self) -> str:
        self.hub.disk.crash_after = self.world.random.randrange(1, 40)
        return "hub crashed in a turn"

    def _fail_disk(self) -> str:
        self.hub.disk.fails_until = self.world.now + self.world.seconds(0.1, 3)
        return "disk failed"

    def _kill_optimizer(self) -> str:
        self._optimizer.kill()
        return "optimizer killed"

    def _pause_optimizer(self) -> str:
        self._optimizer.link.stepper.pause(self.world.now + self.world.seconds(0.1, 8))
        return "optimizer's link paused"

    def _fail_storage(self) -> str:
        self._optimizer.storage.fails_until = self.world.now + self.world.seconds(0.1, 6)
        return "storage failed"

    def _kill_worker(self) -> str:
        self.world.random.choice(self._workers).kill()
        return "worker killed"

    def _pause_worker(self) -> str:
        worker = self.world.random.choice(self._workers)
        worker.link.stepper.pause(self.world.now + self.world.seconds(0.1, 8))
        return "worker's link paused"

    def _break_connection(self) -> str:
        connections = list(self.network.connections.values())
        if connections:
            self.world.random.choice(connections).close()
        return "connection broken"

    def _cut_off(self) -> str:
        links = [self._optimizer.link, *(worker.link for worker in self._workers)]
        self.world.random.choice(links).cut_off(self.world.seconds(0.1, 15))
        return "client cut off"

    def _request_for_nobody(self) -> str:
        """Publish a request of a process that died before the hub knew its session."""
        number = self._number()
        study = self.world.random.choice(_STUDIES)
        self._commands.publish(
            events.TrialRequested(
                study=study, request=f"orphan {number}", session=f"nobody {number}"
            )
        )
        return "request of an unknown session"

    def _restart_dead(self) -> None:
        if self._optimizer.is_dead:
            self._optimizer = self._start_optimizer()
        self._workers = [
            self._start_worker() if worker.is_dead else worker for worker in self._workers
        ]
        self.world.call_in(self.world.seconds(0.1, 2.0), self._restart_dead)

    def _start_optimizer(self) -> OptimizerProcess:
        return OptimizerProcess(
            self.world,
            self.network,
            self.hub,
            model=self.model,
            backend=self._database,
            host=self._optimizer_host,
            number=self._number(),
        )

    def _start_worker(self) -> WorkerProcess:
        number = self._number()

        def check_begin(event: events.TrialAssigned) -> None:
            """Check that the attempt is not over, and that no other worker has begun it."""
            attempt = (event.study, event.trial, event.attempt)
            self.world.check(
                (*attempt, event.request) not in self._void,
                f"attempt {attempt} is begun after a later one was handed out",
            )
            first = self._begun.setdefault(attempt, number)
            self.world.check(
                first == number, f"attempt {attempt} is begun by worker {first} and {number}"
            )

        return WorkerProcess(self.world, self.network, self._host, number, check_begin)

    def _number(self) -> int:
        self._n_started += 1
        return self._n_started

    def _submit(self, name: str) -> None:
        spec = trialbus.StudySpec(
            name=name,
            params={"x": trialbus.FloatParam(low=0, high=1)},
            objectives=(trialbus.Objective(metric="loss", direction="minimize"),),
            n_trials=_N_TRIALS,
            max_retries=1000,
        )
        self._commands.publish(
            events.StudySubmitted(
                study=name, spec=spec, submission=f"of {name}", at=self.world.wall_clock()
            )
        )

    # --- checks ---

    def _check_turn(self) -> None:
        for row in self.model.read():
            event = codec.decode(row.topic, msgspec.Raw(row.body))
            self._events.append((row.offset, event))
            if isinstance(event, events.TrialAssigned):
                self._check_assignment(row, event)
            elif isinstance(event, events.StudyFinished):
                self._finished[event.study] = event.reason

    def _check_assignment(self, row: Row, event: events.TrialAssigned) -> None:
        check, attempt = self.world.check, (event.study, event.trial, event.attempt)
        if not self._hand_outs.add(event):
            self._void.add((*attempt, event.request))
            return
        request = self._requests.setdefault(attempt, event.request)
        check(
            request == event.request,
            f"offset {row.offset}: attempt {attempt} goes to {event.request} and to {request}",
        )
        answer = self._attempts.setdefault(event.request, attempt)
        check(
            answer == attempt,
            f"offset {row.offset}: request {event.request} is answered by {attempt} and {answer}",
        )

    def _is_at_rest(self) -> bool:
        return len(self._finished) == len(_STUDIES) and self._optimizer.publisher.n_pending == 0

    def _check_rest(self) -> None:
        for name in _STUDIES:
            self.world.check(
                name in self._finished, f"study {name!r} does not end: {self._explain(name)}"
            )
            trials = optuna.load_study(study_name=name, storage=self._database).trials
            if self._finished[name] == "exhausted":
                self.world.check(
                    len(trials) == _N_TRIALS, f"study {name!r} has {len(trials)} trials"
                )
            for trial in trials:
                self._check_trial(name, trial)

    def _check_trial(self, study: str, trial: FrozenTrial) -> None:
        """Check that a recorded trial is what the log says of its last attempt."""
        values: dict[int, float] = {}
        state: str | None = None
        attempt = _MISSING
        is_open = False
        for _, event in self._events:
            if getattr(event, "study", "") != study or getattr(event, "trial", -1) != trial.number:
                continue
            match event:
                case events.TrialAssigned() if event.attempt > attempt:
                    attempt, is_open, values = event.attempt, True, {}
                case events.EvaluationComplete() if is_open and event.attempt == attempt:
                    values[event.step] = event.metrics["loss"]
                case events.TrialFinished() if is_open and event.attempt == attempt:
                    state, is_open = event.state, False
                case _:
                    pass
        check, expected = self.world.check, {"complete": TrialState.COMPLETE}
        check(trial.state.is_finished(), f"trial {trial.number} of {study!r} is {trial.state.name}")
        check(
            trial.state == expected.get(str(state), TrialState.FAIL),
            f"trial {trial.number} of {study!r} is {trial.state.name}, in the log {state}",
        )
        if state is not None:
            check(
                trial.intermediate_values == values,
                f"trial {trial.number} of {study!r} has other values than the log: {values}",
            )

    def _explain(self, study: str) -> str:
        try:
            trials = optuna.load_study(study_name=study, storage=self._database).trials
        except KeyError:
            return "it was not begun"
        return str([trial.state.name for trial in trials])

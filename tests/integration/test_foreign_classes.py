"""Users' classes in a submitted study: the optimizer imports only allowed modules."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

import trialbus
from support.client import SPEC, Client, start_optimizer
from support.commands import small_study
from support.processes import Bus
from support.raw_client import RawClient
from trialbus.messages import codec, events
from trialbus.protocol import frames

EVIL = """
import pathlib
import optuna

pathlib.Path("imported").touch()


class Boom(optuna.samplers.RandomSampler):
    pass
"""


@pytest.fixture
def foreign(bus: Bus) -> trialbus.StudySpec:
    """A study that names a class in the optimizer's working folder."""
    (bus.directory / "evil.py").write_text(EVIL)
    return msgspec.structs.replace(
        SPEC, name="foreign", sampler=trialbus.Component(type="evil.Boom")
    )


def test_a_stranger_s_study_imports_nothing_and_ends_while_other_studies_go_on(
    bus: Bus, client: Callable[[], Client], foreign: trialbus.StudySpec
) -> None:
    bus.hub()
    start_optimizer(bus)
    worker = client()
    worker.submit()
    submitted = events.StudySubmitted(study="foreign", spec=foreign, submission="1")
    with RawClient(bus.endpoint) as stranger:
        body = msgspec.Raw(codec.encode(submitted))
        stranger.send(frames.Publish(b"s" * 16, 1, [(submitted.topic, body)]))
        refused = worker.next(trialbus.StudyFinished)
    assert (refused.study, refused.reason) == ("foreign", "failed")
    assert refused.error is not None
    assert "sampler.type: 'evil.Boom' is of a module that this optimizer may not" in refused.error
    assert "optimizer.allowed_modules=[evil]" in refused.error
    for _ in range(SPEC.n_trials):
        worker.run_one()
    assert worker.next(trialbus.StudyFinished).reason == "exhausted"
    assert not (bus.directory / "imported").exists()


def test_the_operator_s_modules_are_imported(
    bus: Bus, client: Callable[[], Client], foreign: trialbus.StudySpec
) -> None:
    bus.hub()
    start_optimizer(bus, "optimizer.allowed_modules=[evil]")
    worker = client()
    worker.submit(foreign)
    worker.run_one("foreign")
    assert (bus.directory / "imported").exists()


@pytest.mark.usefixtures("foreign")
def test_a_user_s_own_classes_need_no_permission_when_the_study_starts_its_optimizer(
    bus: Bus,
) -> None:
    study = [a for a in small_study(steps=1, step_s=0.0, n_trials=2) if a != "sampler=random"]
    files = {
        "ours": "_target_: evil:Boom\n",
        "inner": "type: GPSampler\nindependent_sampler: {type: evil.Boom}\n",
    }
    (bus.directory / "conf" / "sampler").mkdir(parents=True)
    for name, text in files.items():
        (bus.directory / "conf" / "sampler" / f"{name}.yaml").write_text(text)
        process = bus.service(
            "study", "--config-dir=conf", *study, f"sampler={name}", f"study.name={name}"
        )
        assert process.wait(90) == 0, process.printed()
        assert "2 complete, 0 pruned, 0 failed" in process.printed()

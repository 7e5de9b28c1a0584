"""Study files: one YAML file with everything about a study, or a sweep of W&B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trialbus.errors import SpecError
from trialbus_services.config import sections
from trialbus_services.config.composing import ConfigError, compose_config
from trialbus_services.config.settings import WorkerSettings

STUDY = """\
study:
  name: mine
  n_trials: 5
  objective: {metric: acc}
  params:
    lr: {type: float, low: 0.1, high: 1}
"""
SWEEP: dict[str, Any] = {
    "program": "train.py",
    "method": "random",
    "metric": {"name": "val_loss"},
    "parameters": {"lr": {"min": 0.1, "max": 1.0}},
}


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def write_sweep(folder: Path, **changes: Any) -> str:
    return write(folder, yaml.safe_dump(SWEEP | changes))


def test_a_file_holds_everything_and_the_command_line_stands_on_top(tmp_path: Path) -> None:
    file = write(tmp_path, f"{STUDY}sampler: random\npruner: null\nworker: {{slots: 3}}\n")
    with compose_config([file, "study.n_trials=7"]) as composed:
        spec = sections.read_study(composed.config)
        assert sections.read_section(composed.config, WorkerSettings).slots == 3
    assert (spec.name, spec.n_trials, list(spec.params)) == ("mine", 7, ["lr"])
    assert spec.sampler.type == "RandomSampler"
    assert spec.pruner is not None
    assert spec.pruner.type == "NopPruner"
    assert composed.arguments == [file, "study.n_trials=7"]


def test_the_services_of_a_study_compose_the_same_config(tmp_path: Path) -> None:
    file = write(tmp_path, STUDY)
    with compose_config(["study.n_trials=7", file]) as composed:
        spec = sections.read_study(composed.config)
    with compose_config(composed.arguments) as again:
        assert sections.read_study(again.config) == spec


def test_a_file_with_the_study_alone_needs_no_section(tmp_path: Path) -> None:
    text = "name: mine\nn_trials: 5\nobjective: {metric: acc}\nparams: {x: 'interval(0, 1)'}\n"
    with compose_config([write(tmp_path, text)]) as composed:
        assert sections.read_study(composed.config).name == "mine"


def test_a_sampler_written_out_takes_no_argument_of_the_default_sampler(tmp_path: Path) -> None:
    text = f"{STUDY}sampler: {{type: CmaEsSampler, n_startup_trials: 3}}\n"
    with compose_config([write(tmp_path, text)]) as composed:
        assert sections.read_study(composed.config).sampler.args == {"n_startup_trials": 3}


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        (f"{STUDY}samplr: tpe\n", "samplr: there is no such section; did you mean 'sam", "line 7"),
        (f"{STUDY}sampler: tpee\n", "sampler: there is no 'tpee'", "mine.yaml"),
        (STUDY.replace("low: 0.1", "low: 2"), "study.params.lr.low: 2 is above high 1", "line 6"),
        ("study: [1", "is not valid YAML", "line 1"),
        ("- 1\n", "holds no mapping", "mine.yaml"),
    ],
    ids=["section", "choice", "value", "yaml", "list"],
)
def test_a_mistake_in_a_file_names_the_line(
    tmp_path: Path, text: str, problem: str, place: str
) -> None:
    with pytest.raises(ConfigError) as raised:  # noqa: SIM117
        with compose_config([write(tmp_path, text)]) as composed:
            sections.read_study(composed.config)
    assert problem in str(raised.value)
    assert place in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a.yaml"], "No such file"),
        (["a.yaml", "b.yml"], "expected one study file"),
        (["a.yaml", "--config-name=b"], "expected either"),
    ],
    ids=["missing", "two", "beside a primary config"],
)
def test_a_wrong_command_line_with_a_file_is_refused(arguments: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem), compose_config(arguments):
        pass


def test_a_sweep_becomes_a_study_with_a_command(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "log": {"distribution": "log_uniform", "min": 0, "max": 0},
        "batch": {"values": [32, 64]},
        "layers": {"min": 1, "max": 4},
        "dropout": {"distribution": "q_uniform", "min": 0.0, "max": 0.55, "q": 0.1},
        "optimizer": {"parameters": {"name": {"values": ["adam", "sgd"]}}},
        "epochs": {"value": 3},
    }
    file = write_sweep(
        tmp_path,
        parameters=parameters,
        method="bayes",
        run_cap=9,
        early_terminate={"type": "hyperband", "min_iter": 3, "eta": 2},
    )
    with compose_config([file]) as composed:
        spec = sections.read_study(composed.config)
        trainer = sections.read_trainer(composed.config)
    assert (spec.name, spec.n_trials, spec.directions) == ("mine", 9, ["minimize"])
    assert {name: repr(param) for name, param in spec.params.items()} == {
        "lr": "FloatParam(low=0.001, high=0.1, log=True)",
        "log": "FloatParam(low=1.0, high=1.0, log=True)",
        "batch": "CategoricalParam(choices=(32, 64))",
        "layers": "IntParam(low=1, high=4)",
        "dropout": "FloatParam(low=0.0, high=0.5, step=0.1)",
        "optimizer.name": "CategoricalParam(choices=('adam', 'sgd'))",
    }
    assert spec.fixed == {"epochs": 3}
    assert spec.sampler.type == "GPSampler"
    assert spec.pruner is not None
    assert spec.pruner.args["min_resource"] == 3
    assert trainer.command[1:] == [str(tmp_path / "train.py")]
    assert trainer.params_as == "flags"


def test_a_sweep_may_say_where_its_metrics_come_from(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    source = {"stdout": "loss=(?P<val_loss>.*)"}
    file = write_sweep(tmp_path, trainer={"metrics": source}, worker={"slots": 3}, run_cap=2)
    with compose_config([file]) as composed:
        trainer = sections.read_trainer(composed.config)
        assert sections.read_study(composed.config).n_trials == 2
        assert sections.read_section(composed.config, WorkerSettings).slots == 3
    assert (trainer.params_as, trainer.command[1:]) == ("flags", [str(tmp_path / "train.py")])
    assert [metrics.stdout for metrics in trainer.metric_sources] == [source["stdout"]]


def test_a_sweep_without_a_number_of_runs_names_both_places_for_the_number(tmp_path: Path) -> None:
    with (
        pytest.raises(SpecError, match=r"study\.n_trials=50.*run_cap"),
        compose_config([write_sweep(tmp_path)]) as composed,
    ):
        sections.read_study(composed.config)


def test_a_grid_sweep_runs_as_many_trials_as_the_grid_has_points(tmp_path: Path) -> None:
    parameters = {"a": {"values": [1, 2, 3]}, "b": {"min": 1, "max": 4}}
    with compose_config([write_sweep(tmp_path, method="grid", parameters=parameters)]) as composed:
        assert sections.read_study(composed.config).n_trials == 12


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"method": "hyperopt"}, "method: 'hyperopt' (expected one of random, grid, bayes)"),
        ({"metric": {}}, "metric.name: is missing"),
        ({"metric": {"name": "a", "goal": "max"}}, "metric.goal: 'max'"),
        ({"metric": {"name": "a", "target": 1}}, "metric.target: has no counterpart"),
        ({"parameters": {"x": {"distribution": "beta"}}}, "parameters.x.distribution: 'beta' has"),
        ({"parameters": {"x": {"values": [1], "probabilities": [1]}}}, "x.probabilities: has no"),
        ({"parameters": {"x": {"min": 1}}}, "parameters.x.max: is missing (expected a number"),
        ({"parameters": {"x": 1}}, "parameters.x: 1 (expected values"),
        ({"early_terminate": {"type": "median"}}, "early_terminate.type"),
        ({"early_terminate": {"type": "hyperband"}}, "has no min_iter and no max_iter"),
        ({"command": ["${env}", "${args_json}"]}, "command: ${args_json} has no counterpart here"),
        ({"program": None}, "program: None (expected the script"),
        ({"method": ["grid"]}, "method: ['grid'] (expected one of"),
        (
            {"metric": {"name": "a", "gaol": "maximize"}},
            "metric.gaol: is no key of a sweep; did you mean 'goal'?",
        ),
        (
            {"parameters": {"x": {"minn": 0.1, "max": 1}}},
            "parameters.x.minn: is no key of a sweep; did you mean 'min'?",
        ),
        (
            {"parameters": {"g": {"parameters": {"x": {"vlaue": 1}}}}},
            "parameters.g.parameters.x.vlaue: is no key of a sweep; did you mean 'value'?",
        ),
        ({"parameters": {"g": {"parameters": 1}}}, "parameters.g.parameters: 1 (expected dist"),
        ({"parameters": {"x": {"min": "a", "max": 1}}}, "parameters.x.min: 'a' (expected a number"),
        (
            {"parameters": {"x": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}}},
            "parameters.x.q: 0 (expected a number above 0)",
        ),
        (
            {"parameters": {"x": {"distribution": "log_uniform", "min": 0, "max": 1000}}},
            "parameters.x.max: 1000 is too large",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_itr": 3}},
            "early_terminate.min_itr: is no key of a sweep; did you mean 'min_iter'?",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": "x"}},
            "early_terminate.min_iter: 'x' (expected a whole number from 1)",
        ),
        ({"trainr": {}}, "trainr: is no key of a sweep; did you mean 'trainer'?"),
        ({"methods": 1}, "methods: is no key of a sweep; did you mean 'method'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_part_of_a_sweep_without_counterpart_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with (
        pytest.raises(ConfigError) as raised,
        compose_config([write_sweep(tmp_path, **changes), "study.n_trials=3"]),
    ):
        pass
    assert problem in str(raised.value)
    assert "mine.yaml" in str(raised.value)

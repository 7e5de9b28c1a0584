"""W&B sweep: the file of a Weights & Biases sweep, converted to sections of the configuration.

Source:
    "Define a sweep configuration", https://docs.wandb.ai/guides/sweeps/define-sweep-configuration
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from trialbus.errors import SpecError
from trialbus.study.validation import format_expected, is_mapping
from trialbus_services.config.settings import SECTIONS

_SAMPLERS = {"random": "random", "grid": "grid", "bayes": "gp"}
_GOALS = ("minimize", "maximize")
_KEYS = (
    *("program", "command", "method", "metric", "parameters", "early_terminate", "run_cap", "name"),
    *("project", "entity", "description", "job", "image_uri", "settings", "controller"),
)
#: Keys of the mappings in a sweep.
_METRIC_KEYS = ("name", "goal", "target")
_EARLY_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
_PARAMETER_KEYS = (
    *("value", "values", "distribution", "probabilities", "min", "max", "mu", "sigma", "q"),
    "parameters",
)
_MACRO = re.compile(r"\$\{([\w:]+)\}")
#: How params reach the program, by the macro of W&B that stands for the arguments.
_ARGUMENT_MACROS = {
    "args": "flags",
    "args_no_hyphens": "overrides",
    "args_json_file": "file",
}
_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]


def is_sweep(data: Mapping[str, Any]) -> bool:
    """Tell whether a YAML file is a sweep of W&B."""
    return "parameters" in data and "method" in data


def convert_sweep(data: Mapping[str, Any], *, folder: Path, name: str) -> dict[str, Any]:
    """Return a sweep as sections of the configuration.

    Args:
        data: Content of the file.
        folder: Folder of the file, in which the program is searched.
        name: Name of the study, if the sweep has none.

    Raises:
        SpecError: A key is unknown, or has no counterpart; names the key and what to write.
    """
    _check_keys("", data, (*_KEYS, *SECTIONS))
    method = data["method"]
    if not isinstance(method, str) or method not in _SAMPLERS:
        raise SpecError("method", f"{method!r} (expected one of {', '.join(_SAMPLERS)})")
    parameters = data["parameters"]
    params: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    _convert_parameters("parameters", "", parameters, params, fixed)
    study: dict[str, Any] = {
        "name": str(data.get("name") or name),
        "objective": _convert_metric(data.get("metric")),
        "params": params,
        "fixed": fixed,
    }
    n_trials = data.get("run_cap") or _count_points(params, method)
    if n_trials is not None:
        study["n_trials"] = n_trials
    pruner = _convert_early_terminate(data.get("early_terminate"))
    return {
        "study": study,
        "sampler": _SAMPLERS[method],
        "pruner": pruner,
        "trainer": _convert_command(data, folder),
    }


def _check_keys(key: str, mapping: Mapping[str, Any], known: Sequence[str]) -> None:
    """Check the keys of a mapping in a sweep.

    Raises:
        SpecError: A key is unknown; names the nearest known key.
    """
    for name in map(str, mapping):
        if name not in known:
            path = f"{key}.{name}" if key else name
            raise SpecError(path, f"is no key of a sweep{format_expected(name, known)}")


def _convert_metric(metric: Any) -> dict[str, Any]:
    if not is_mapping(metric) or not metric.get("name"):
        raise SpecError(
            "metric.name",
            "is missing (expected the metric that the program gives; a study has one)",
        )
    _check_keys("metric", metric, _METRIC_KEYS)
    goal = metric.get("goal", "minimize")
    if goal not in _GOALS:
        raise SpecError("metric.goal", f"{goal!r} (expected minimize or maximize)")
    if "target" in metric:
        raise SpecError("metric.target", "has no counterpart here (expected study.target=VALUE)")
    return {"metric": str(metric["name"]), "direction": goal}


def _convert_early_terminate(early: Any) -> dict[str, Any] | None:
    if early is None:
        return None
    if not is_mapping(early) or early.get("type") != "hyperband":
        raise SpecError("early_terminate.type", f"{early!r} (expected hyperband)")
    _check_keys("early_terminate", early, _EARLY_KEYS)
    for key in ("min_iter", "max_iter", "s", "eta"):
        value = early.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"early_terminate.{key}", f"{value!r} (expected a whole number from 1)")
    if "min_iter" not in early and "max_iter" not in early:
        raise SpecError("early_terminate", "has no min_iter and no max_iter (expected one of them)")
    eta: int = early.get("eta", 3)
    if "min_iter" in early:
        least, most = early["min_iter"], "auto"
    else:
        # W&B prunes at max_iter / eta**1, ..., max_iter / eta**s.
        most = early["max_iter"]
        least = max(1, most // eta ** early.get("s", 1))
    return {
        "type": "HyperbandPruner",
        "min_resource": least,
        "max_resource": most,
        "reduction_factor": eta,
    }


def _convert_parameters(
    key: str, prefix: str, parameters: Any, params: dict[str, Any], fixed: dict[str, Any]
) -> None:
    if not is_mapping(parameters) or not parameters:
        raise SpecError(key, f"{parameters!r} (expected distributions by name)")
    for name, parameter in parameters.items():
        path = f"{key}.{name}"
        if not is_mapping(parameter):
            raise SpecError(path, f"{parameter!r} (expected values, value or a distribution)")
        _check_keys(path, parameter, _PARAMETER_KEYS)
        if "parameters" in parameter:
            _convert_parameters(
                f"{path}.parameters", f"{prefix}{name}.", parameter["parameters"], params, fixed
            )
        elif "value" in parameter:
            fixed[prefix + name] = parameter["value"]
        else:
            params[prefix + name] = _convert_parameter(path, parameter)


def _convert_parameter(key: str, parameter: Mapping[str, Any]) -> dict[str, Any]:
    if "probabilities" in parameter:
        raise SpecError(
            f"{key}.probabilities", "has no counterpart in Optuna (expected values alone)"
        )
    if "values" in parameter:
        return {"type": "categorical", "choices": parameter["values"]}
    low, high = parameter.get("min"), parameter.get("max")
    is_whole = isinstance(low, int) and isinstance(high, int)
    distribution = parameter.get("distribution", "int_uniform" if is_whole else "uniform")
    convert = _DISTRIBUTIONS.get(distribution) if isinstance(distribution, str) else None
    if convert is None:
        raise SpecError(
            f"{key}.distribution",
            f"{distribution!r} has no counterpart in Optuna (expected one of "
            f"{', '.join(_DISTRIBUTIONS)}, or values)",
        )
    low, high = (_read_number(key, parameter, name) for name in ("min", "max"))
    q = _read_number(key, {"q": 1, **parameter}, "q")
    if q <= 0:
        raise SpecError(f"{key}.q", f"{q!r} (expected a number above 0)")
    try:
        return convert(low, high, q)
    except OverflowError:
        raise SpecError(
            f"{key}.max", f"{high!r} is too large for an exponent of e (see log_uniform_values)"
        ) from None


def _read_number(key: str, parameter: Mapping[str, Any], name: str) -> float:
    """Return a number of a parameter.

    Raises:
        SpecError: The parameter has no such number.
    """
    if name not in parameter:
        raise SpecError(f"{key}.{name}", "is missing (expected a number, or values)")
    value = parameter[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise SpecError(f"{key}.{name}", f"{value!r} (expected a number)")
    return value


def _make_steps(low: float, high: float, q: float) -> dict[str, Any]:
    steps = math.floor(round((high - low) / q, 9))
    return {"low": low, "high": round(low + steps * q, 12), "step": q}


_DISTRIBUTIONS: dict[str, Callable[[float, float, float], dict[str, Any]]] = {
    "int_uniform": lambda low, high, q: {"type": "int", "low": low, "high": high},
    "uniform": lambda low, high, q: {"type": "float", "low": low, "high": high},
    "q_uniform": lambda low, high, q: {
        "type": "int" if all(isinstance(x, int) for x in (low, high, q)) else "float",
        **_make_steps(low, high, q),
    },
    # The bounds are exponents of e.
    "log_uniform": lambda low, high, q: {
        "type": "float",
        "low": math.exp(low),
        "high": math.exp(high),
        "log": True,
    },
    "log_uniform_values": lambda low, high, q: {
        "type": "float",
        "low": low,
        "high": high,
        "log": True,
    },
}


def _count_points(params: Mapping[str, Any], method: str) -> int | None:
    """Return the number of points of a grid; None if the sweep says no number of runs."""
    if method != "grid":
        return None
    counts = [
        len(param["choices"])
        if param["type"] == "categorical"
        else round((param["high"] - param["low"]) / param.get("step", 1)) + 1
        for param in params.values()
    ]
    return math.prod(counts)


def _convert_command(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    command = data.get("command", _COMMAND)
    if isinstance(command, str):
        command = shlex.split(command)
    if not isinstance(command, list):
        raise SpecError("command", f"{command!r} (expected a list of arguments)")
    program = data.get("program")
    arguments: list[str] = []
    params_as = "environment"
    for argument in map(str, cast(list[Any], command)):
        macro = _MACRO.fullmatch(argument)
        if macro and macro[1] in _ARGUMENT_MACROS:
            params_as = _ARGUMENT_MACROS[macro[1]]
            if params_as == "file":
                arguments.append("{params_file}")
        elif macro and macro[1] == "env":
            continue  # `env` finds the interpreter on PATH, as the worker does
        else:
            arguments.append(_MACRO.sub(lambda m: _fill_macro(m[1], program, folder), argument))
    return {"command": arguments, "params_as": params_as}


def _fill_macro(macro: str, program: Any, folder: Path) -> str:
    name, _, variable = macro.partition(":")
    if name == "interpreter":
        return sys.executable
    if name == "envvar":
        return f"${{oc.env:{variable}}}"
    if name == "program":
        if not isinstance(program, str):
            raise SpecError("program", f"{program!r} (expected the script that `command` starts)")
        beside = folder / program
        return str(beside) if beside.is_file() else program
    known = ("env", "interpreter", "program", "envvar:NAME", *_ARGUMENT_MACROS)
    raise SpecError(
        "command", f"${{{macro}}} has no counterpart here{format_expected(macro, known)}"
    )

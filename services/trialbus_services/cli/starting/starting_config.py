"""Starting config: the text of a first study file for a script, with a comment for each line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trialbus_services.cli.starting.printed_metrics import PrintedLine, guess_direction
from trialbus_services.cli.starting.script_options import Option, ScriptOptions

#: Words in names of options that are no hyperparameters.
_NOT_SEARCHED = (
    *("seed", "epoch", "epochs", "step", "steps", "iter", "iters", "dir", "path", "file", "folder"),
    *("data", "root", "out", "output", "log", "logs", "save", "load", "resume", "checkpoint"),
    *("ckpt", "device", "devices", "cuda", "gpu", "gpus", "worker", "workers", "nodes"),
    *("port", "host", "name", "project", "verbose", "debug", "interval", "every", "version"),
    *("rank", "world", "backend", "url", "token", "key", "tag", "wandb"),
)
_STEPS = (
    "epochs",
    "max_epochs",
    "num_epochs",
    "n_epochs",
    "epoch",
    "max_steps",
    "num_steps",
    "steps",
)
_LOG_WORDS = ("lr", "learning", "decay", "eps", "lambda", "reg", "temperature", "alpha", "beta")
_FRACTION_WORDS = ("dropout", "drop", "momentum", "prob", "ratio", "frac", "smoothing")


@dataclass(frozen=True)
class StartingConfig:
    """The text of a study file, and what a person has to know about the file."""

    text: str
    """YAML with comments."""
    n_params: int
    """Number of params that the file searches."""
    guess: str | None
    """Keys of the file that are guesses, to be changed before the study runs; None for no key."""


def make_starting_config(
    script: Path,
    options: ScriptOptions,
    line: PrintedLine | None,
    reported: str | None,
    *,
    reads_params: bool = False,
) -> StartingConfig:
    """Return a study file that runs a script with values of its options.

    Args:
        script: Path of the script, as the command is to have it.
        options: Options of the script.
        line: Line with metrics that the script prints; None if none was seen.
        reported: Metric that the script gives to `trial.report`; None if it reports nothing.
        reads_params: Whether the script reads `trial.params` itself.
    """
    searched = {option.name: _make_param(option) for option in options.options}
    params = {name: param for name, param in searched.items() if param is not None}
    name = script.stem
    objective = reported or (line.best if line else "loss")
    is_hydra = options.kind == "hydra"
    is_own = reads_params and not is_hydra  # an application of Hydra has its params in its config
    # Reports need no other source, and an application of Hydra may return its objective.
    if is_hydra and line is None:
        metrics = _make_run_folder(reported)
    else:
        metrics = [] if reported else _make_metrics(line)
    is_known = reported or line or is_hydra
    what = "what is optimized: a metric that the script gives" if is_known else "a guess: change it"
    lines = [
        f"# A first study of {script.name}, made by `trialbus init`. Run it, or change it first:",
        f"#   trialbus study {_shorten(script)} --dry-run   # instead of the study, show what runs",
        "",
        "trainer:",
        *(_make_own_command(script) if is_own else _make_command(script, options, params)),
        *metrics,
        "",
        "study:",
        f"  name: {json.dumps(name)}  # in the database, and of the folder of the report",
        "  n_trials: 20  # in all, over every start of this study",
        *_make_budget(options),
        "  objective:",
        f"    metric: {objective}  # {what}",
        f"    direction: {guess_direction(objective)}  # or {_other(guess_direction(objective))}",
        "    aggregate: best  # of all steps; or last",
        "  params:  # low and high are guesses around the script's defaults: check them",
        *(f"    {json.dumps(name)}: {param}" for name, param in params.items()),
    ]
    if not params:
        lines[-1] = (
            "  params:  # the script shows no option with a number or choices: name some here"
        )
        lines.append("    x: {type: float, low: 0.0, high: 1.0}  # an example")
    left_out = [option.name for option in options.options if option.name not in params]
    if left_out:
        lines.append(f"    # not searched: {', '.join(left_out)}")
    lines += [
        "",
        "sampler: tpe      # or random, gp, cmaes, grid, ...",
        "pruner: median    # stops trials that are worse than the median at the same step; or none",
        "worker: {slots: 2}  # trials at the same time",
    ]
    guess = None if is_known else "trainer.metrics and study.objective.metric"
    return StartingConfig("\n".join(lines) + "\n", len(params), guess)


def _shorten(script: Path) -> str:
    return str(Path("conf") / f"{script.stem}.yaml")


def _other(direction: str) -> str:
    return "minimize" if direction == "maximize" else "maximize"


def _make_command(script: Path, options: ScriptOptions, params: dict[str, str]) -> list[str]:
    arguments = ["python", str(script)]
    for option in options.options:
        if option.positional and option.name in params:
            arguments.append(f"{{{option.name}}}")
        elif option.name.replace("-", "_") in _STEPS and not option.positional:
            arguments.append(_assign(options, option.name, "{budget}"))
        elif option.name == "seed":
            arguments.append(_assign(options, option.name, "{seed}"))
    missing = [
        option.name for option in options.options if option.required and option.name not in params
    ]
    lines = [f"  command: {json.dumps(arguments)}"]
    if missing:
        lines.append(
            f"  # the script needs values for {', '.join(missing)}: add them to the command"
        )
    match options.kind:
        case "hydra":
            lines.append("  params_as: overrides  # each param is an override: lr=0.1")
        case "none":
            lines.append("  params_as: environment  # each param is a variable: $TRIALBUS_PARAM_LR")
        case _:
            lines.append("  params_as: flags  # each param is an option: --lr=0.1")
    switches = {
        option.name: [f"--{option.name}", f"--no-{option.name}"]
        if option.negative
        else f"--{option.name}"
        for option in options.options
        if option.switch and option.name in params
    }
    if switches:
        lines.append(f"  switches: {json.dumps(switches)}  # options without a value")
    return lines


def _make_run_folder(reported: str | None) -> list[str]:
    """Return the arguments of `trainer=hydra`, which also take what an application returns."""
    returned = (
        [] if reported else ["  # what the application returns is the value of the objective"]
    )
    return [
        *returned,
        "  arguments:",
        "    - hydra.run.dir='{run_dir}'",
        "    - ++hydra.callbacks.trialbus._target_=trialbus.callbacks.hydra.TrialCallback",
    ]


def _make_own_command(script: Path) -> list[str]:
    command = json.dumps(["python", str(script)])
    return [f"  command: {command}  # takes its params by trialbus.attach()"]


def _assign(options: ScriptOptions, name: str, value: str) -> str:
    return f"{name}={value}" if options.kind == "hydra" else f"--{name}={value}"


def _make_metrics(line: PrintedLine | None) -> list[str]:
    if line is None:
        return [
            "  # Where metrics come from: lines of the output by a regular expression, or a file",
            "  # ({file: '{run_dir}/metrics.csv'}), or TensorBoard ({tensorboard: runs}).",
            "  # A GUESS, since the script prints no line with a number: write where they stand.",
            "  metrics: {stdout: 'loss[=: ]+(?P<loss>[-+\\w.]+)'}",
        ]
    return [
        "  # Lines of the output; every named group is a metric, and the group step the step.",
        f"  metrics: {{stdout: {_quote(line.pattern)}}}",
    ]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _make_budget(options: ScriptOptions) -> list[str]:
    for option in options.options:
        if option.name.replace("-", "_") in _STEPS and isinstance(option.default, int):
            return [f"  budget: {option.default}  # {option.name} of one trial"]
    return []


def _make_param(option: Option) -> str | None:
    """Return the YAML of a param for an option; None if the option is not to be searched."""
    name = option.name.lower()
    if option.switch or isinstance(option.default, bool):
        is_searched = not _has_word(name, _NOT_SEARCHED)
        return "{type: categorical, choices: [true, false]}" if is_searched else None
    if option.choices:
        choices = ", ".join(json.dumps(choice) for choice in option.choices)
        return f"{{type: categorical, choices: [{choices}]}}"
    if _has_word(name, _NOT_SEARCHED):
        return None
    match option.default:
        case int(value):
            return _make_int(value)
        case float(value) if math.isfinite(value):
            return _make_float(name, value)
        case _:
            return None


def _has_word(name: str, words: Sequence[str]) -> bool:
    return not set(re.split(r"[^a-z0-9]+", name)).isdisjoint(words)


def _make_int(value: int) -> str:
    if value <= 0:
        return f"{{type: int, low: {value}, high: {value + 4}}}  # {value} in the script"
    low, high = max(1, value // 4), value * 4
    log = ", log: true" if value >= 8 else ""
    return f"{{type: int, low: {low}, high: {high}{log}}}  # {value} in the script"


def _make_float(name: str, value: float) -> str:
    comment = f"  # {value!r} in the script"
    if _has_word(name, _FRACTION_WORDS) and 0 <= value < 1:
        high = 0.99 if value > 0.5 else 0.5
        return f"{{type: float, low: 0.0, high: {high}}}{comment}"
    if value > 0 and (value <= 0.01 or _has_word(name, _LOG_WORDS)):
        low, high = _format(value / 10), _format(value * 10)
        return f"{{type: float, low: {low}, high: {high}, log: true}}{comment}"
    if value == 0:
        return f"{{type: float, low: 0.0, high: 0.1}}{comment}"
    low, high = sorted((value / 2, value * 2))
    return f"{{type: float, low: {_format(low)}, high: {_format(high)}}}{comment}"


def _format(value: float) -> str:
    """Return a number as YAML 1.1 reads it: with a point before an exponent."""
    text = f"{value:.6g}"
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{exponent}{power}"

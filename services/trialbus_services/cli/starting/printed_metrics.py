"""Printed metrics: regular expressions for the lines with numbers that a script prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trialbus_services.config.metric_source import STEP_GROUP

_STEPS = ("step", "epoch", "iteration", "iter", "update", "round", "i")
_LABEL = re.compile(r"([A-Za-z][\w/.-]*)\s*[:=]?\s*$")
_LOGGING = frozenset({"print", "info", "log", "write", "echo", "secho"})
_MAXIMIZED = ("acc", "auc", "f1", "score", "reward", "return", "map", "iou", "bleu", "r2")
_MINIMIZED = ("loss", "error", "err", "mse", "mae", "rmse", "perplexity", "ppl")


@dataclass(frozen=True)
class PrintedLine:
    """A line with numbers that a script prints."""

    pattern: str
    """Regular expression with a named group for each number."""
    metrics: list[str]
    """Names of the groups without the step, in the order of the line."""

    @property
    def best(self) -> str:
        """Name that is most likely the objective: of a validation, and a known metric."""
        return max(self.metrics, key=_rate)


def guess_direction(metric: str) -> str:
    """Return the direction that a metric's name suggests.

    Example:
        >>> guess_direction("val_loss")
        'minimize'
    """
    name = metric.lower()
    return "minimize" if any(word in name for word in _MINIMIZED) else "maximize"


def find_printed_line(script: Path) -> PrintedLine | None:
    """Return the line that a script prints for each step, as far as its source shows the line.

    Of several lines the one with the likeliest objective counts, and of equal ones the later.
    """
    lines = list(_list_lines(ast.parse(script.read_bytes())))
    return max(reversed(lines), key=lambda line: _rate(line.best), default=None)


def find_reported_metric(script: Path) -> str | None:
    """Return the likeliest objective among the metrics that a script gives to `trial.report`.

    None if the script reports nothing, or its source does not show the names.
    """
    names = [
        key.value
        for node in ast.walk(ast.parse(script.read_bytes()))
        if isinstance(node, ast.Call) and _get_function_name(node.func) == "report"
        for argument in node.args
        if isinstance(argument, ast.Dict)
        for key in argument.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]
    return max(names, key=_rate, default=None)


def is_reading_params(script: Path) -> bool:
    """Tell whether a script reads its params from a trial of trialbus, as `trial.params`."""
    nodes = list(ast.walk(ast.parse(script.read_bytes())))
    begins = any(
        isinstance(node, ast.Call) and _get_function_name(node.func) in ("attach", "trials")
        for node in nodes
    )
    return begins and any(
        isinstance(node, ast.Attribute)
        and (node.attr == "params" or ast.unparse(node) == "trial.config")
        for node in nodes
    )


def _list_lines(tree: ast.Module) -> Iterator[PrintedLine]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _get_function_name(node.func) in _LOGGING:
            line = _make_line(list(_list_parts(node.args)))
            if line is not None:
                yield line


def _get_function_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _list_parts(arguments: list[ast.expr]) -> Iterator[str | ast.expr]:
    """Yield the texts and the values of a printed line, in order."""
    for i, argument in enumerate(arguments):
        if i:
            yield " "
        if isinstance(argument, ast.JoinedStr):
            for value in argument.values:
                if isinstance(value, ast.Constant):
                    yield str(value.value)
                elif isinstance(value, ast.FormattedValue):
                    yield value.value
        elif isinstance(argument, ast.Constant):
            yield str(argument.value)
        else:
            yield argument


def _make_line(parts: list[str | ast.expr]) -> PrintedLine | None:
    pattern, text = "", ""
    metrics: list[str] = []
    has_step = False
    for part in parts:
        if isinstance(part, str):
            pattern += re.sub(r"(\\ |\s)+", r"\\s+", re.escape(part))
            text += part
            continue
        name = _name_value(part, text)
        text = ""
        if name is None or name in metrics:
            pattern += r"\S+"
        elif not has_step and not metrics and name.lower() in _STEPS:
            pattern += rf"(?P<{STEP_GROUP}>\d+)"
            has_step = True
        else:
            pattern += rf"(?P<{name}>[-+\w.]+)"
            metrics.append(name)
    return PrintedLine(pattern.strip(), metrics) if metrics else None


def _name_value(value: ast.expr, text: str) -> str | None:
    """Return a name for a printed value: the label before the value, else the variable."""
    variable = value.id if isinstance(value, ast.Name) else None
    if variable in _STEPS:
        return variable
    label = _LABEL.search(text.rstrip(" ("))
    name = label[1] if label else variable
    return None if name is None else re.sub(r"\W", "_", name)


def _rate(metric: str) -> int:
    name = metric.lower()
    is_known = any(word in name for word in (*_MAXIMIZED, *_MINIMIZED))
    is_validation = any(word in name for word in ("val", "test", "eval", "dev"))
    is_training = "train" in name
    return 2 * is_known + 4 * is_validation - is_training + any(w in name for w in _MAXIMIZED)

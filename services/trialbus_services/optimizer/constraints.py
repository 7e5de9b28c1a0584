"""Constraints: conditions on a trial's metrics and params, parsed from expressions."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

from trialbus.errors import SpecError
from trialbus_services.optimizer.objective import MissingValueError

_MAX_LENGTH = 400  # Optuna keeps 512 characters, with a prefix
_BRACED = re.compile(r"\{([^{}]*)\}")
_EXPECTED = (
    "expected a sum, product or quotient of metrics, params and numbers on each side of <= or >=; "
    "put a name that is not a plain word in braces: {val/latency} <= 50"
)
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right,
}


class Constraint:
    """A condition on metrics and params of a trial, an expression of arithmetic only.

    Args:
        key: Key of the constraint in the configuration, for errors.
        text: The condition, for example `{val/latency} / 1000 + load <= 0.5`.

    Raises:
        SpecError: The text is not a condition on metrics or params.
    """

    def __init__(self, key: str, text: str) -> None:
        #: The condition, as it was written.
        self.text = text
        #: Names of the metrics and params in the condition.
        self.names: set[str] = set()
        #: Key of the constraint in the configuration.
        self.key = key
        self._names: dict[str, str] = {}
        if len(text) > _MAX_LENGTH:
            raise SpecError(
                key, f"{len(text)} characters are too many (expected at most {_MAX_LENGTH})"
            )
        try:
            tree = ast.parse(_BRACED.sub(self._replace_name, text).strip(), mode="eval").body
        except SyntaxError:
            self._refuse()
        match tree:
            case ast.Compare(left, [ast.LtE()], [right]):
                self._difference = ast.BinOp(left, ast.Sub(), right)
            case ast.Compare(left, [ast.GtE()], [right]):
                self._difference = ast.BinOp(right, ast.Sub(), left)
            case _:
                self._refuse()
        self._check(self._difference)
        if not self.names:
            self._refuse()

    def compute_violation(
        self, metrics: Mapping[str, float], params: Mapping[str, float] | None = None
    ) -> float:
        """Return the violation of the constraint, at most zero where values meet the constraint.

        Args:
            metrics: Newest value of every metric of a trial.
            params: Params of the trial, where the constraint names params.

        Raises:
            MissingValueError: A metric is missing.
            ValueError: The result is not finite.
        """
        values = {**metrics, **(params or {})}
        missing = self.names - values.keys()
        if missing:
            reported = ", ".join(sorted(metrics)) or "nothing"
            raise MissingValueError(
                f"{self.key} {self.text!r} needs {', '.join(sorted(missing))}; "
                f"the trainer reported: {reported}"
            )
        try:
            value = self._evaluate(self._difference, values)
        except ZeroDivisionError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{self.key} {self.text!r} is {value:g}")
        return value

    def _replace_name(self, match: re.Match[str]) -> str:
        alias = f"_{len(self._names)}_"
        self._names[alias] = match[1].strip()
        return f" {alias} "

    def _check(self, node: ast.expr) -> None:
        match node:
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                self._check(left)
                self._check(right)
            case ast.UnaryOp(ast.USub() | ast.UAdd(), operand):
                self._check(operand)
            case ast.Name(name):
                self.names.add(self._names.setdefault(name, name))
            case ast.Constant(value) if type(value) in (int, float):
                pass
            case _:
                self._refuse()

    def _evaluate(self, node: ast.expr, values: Mapping[str, float]) -> float:
        match node:
            case ast.BinOp(left, op, right):
                calculate = _OPERATORS[type(op)]
                return calculate(self._evaluate(left, values), self._evaluate(right, values))
            case ast.UnaryOp(op, operand):
                value = self._evaluate(operand, values)
                return -value if isinstance(op, ast.USub) else value
            case ast.Name(name):
                return float(values[self._names[name]])
            case ast.Constant(float() | int() as number):
                return float(number)
            case _:
                raise AssertionError(ast.dump(node))

    def _refuse(self) -> NoReturn:
        raise SpecError(self.key, f"{self.text!r} is not a condition ({_EXPECTED})") from None

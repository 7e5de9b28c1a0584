"""Curve attributes: the curve of a metric that Optuna has no place for, in user attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trialbus_services.optimizer.attributes import CURVE

# Columns of MySQL hold 64 KiB, and a point takes up to 40 bytes of JSON.
_MAX_POINTS = 1500


def write_curve(curve: Mapping[int, float]) -> dict[str, Any]:
    """Return the user attributes that keep a curve: `CURVE`, `CURVE:1`, ..., by step."""
    points = [(str(step), value) for step, value in sorted(curve.items())]
    parts = [points[i : i + _MAX_POINTS] for i in range(0, len(points), _MAX_POINTS)]
    return {f"{CURVE}:{i}" if i else CURVE: dict(part) for i, part in enumerate(parts)}


def read_curve(user_attrs: Mapping[str, Any]) -> dict[int, float]:
    """Return the curve that `write_curve` put into the user attributes of a trial."""
    curve: dict[int, float] = {}
    key, i = CURVE, 0
    while part := user_attrs.get(key):
        curve.update((int(step), value) for step, value in part.items())
        i += 1
        key = f"{CURVE}:{i}"
    return curve

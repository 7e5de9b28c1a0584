"""TensorBoard reader: scalars of event files, by the loader of TensorBoard itself."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from trialbus_services.worker.collectors.readers import StepReading

_FILES = "**/*tfevents*"

# TensorBoard has no type annotations.
_loader: Any = import_module("tensorboard.backend.event_processing.event_file_loader")
_tensor_util: Any = import_module("tensorboard.util.tensor_util")


class TensorBoardReader:
    """Reads the scalars of the event files in a folder and all folders in that folder.

    Event files that are there at the beginning are left out: an earlier attempt wrote them. The
    scalars of one step are one reading, which is held back until a later step follows or nothing
    was added since the last call.

    Args:
        folder: Folder of the event files, which need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._earlier = set(folder.glob(_FILES))
        self._loaders: dict[Path, Any] = {}
        self._step: int | None = None
        self._metrics: dict[str, float] = {}

    def read(self, *, is_complete: bool) -> list[StepReading]:
        """Return a reading for each step that is finished."""
        readings: list[StepReading] = []
        has_new = False
        for path in sorted(set(self._folder.glob(_FILES)) - self._earlier):
            loader = self._loaders.get(path)
            if loader is None:
                loader = self._loaders[path] = _loader.EventFileLoader(str(path))
            for event in loader.Load():
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name != "scalars":
                        continue
                    has_new = True
                    if self._step is not None and event.step != self._step:
                        readings.append(self._flush())
                    self._step = event.step
                    self._metrics[value.tag] = float(_tensor_util.make_ndarray(value.tensor).item())
        if self._step is not None and (is_complete or not has_new):
            readings.append(self._flush())
        return readings

    def _flush(self) -> StepReading:
        reading = StepReading(self._step, self._metrics)
        self._step, self._metrics = None, {}
        return reading

"""Contents of a report: the section `report` of the config without the folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

#: Every figure of a report by its key, in the order of the page.
FIGURES = (
    "pareto",
    "hypervolume",
    "history",
    "intermediate",
    "importances",
    "parallel",
    "slices",
    "contour",
    "rank",
    "edf",
    "timeline",
    "terminator",
)
#: Figures that are drawn only if `figures` names them; docs/reports.md says why.
ON_DEMAND = frozenset({"terminator"})
#: The files beside the page.
FILES = ("csv", "parquet", "json", "params", "summary")
#: The formats of figures as files.
IMAGES = ("png", "svg")


class ReportSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contents of a study's report: figures, files, and formats.

    Raises:
        ValueError: A figure, file or format is unknown; lists the known names.

    Example:
        >>> ReportSettings(figures=["history", "timeline"], images=["png"]).files
        ['csv', 'parquet', 'json', 'params', 'summary']
    """

    figures: list[str] | None = None
    """Figures of the page, some of `pareto`, `hypervolume`, `history`, `intermediate`,
    `importances`, `parallel`, `slices`, `contour`, `rank`, `edf`, `timeline`, `terminator`; null
    for all but `terminator`."""
    plotly_js: Literal["inside", "beside"] = "inside"
    """Where Plotly's program is: `inside` makes the page one file of some 5 MB, `beside` puts
    `plotly.min.js` into its folder, for many pages of one study or for version control."""
    files: list[str] = msgspec.field(default_factory=lambda: list(FILES))
    """Files beside the page, some of `csv`, `parquet`, `json`, `params`, `summary`."""
    images: list[str] = []
    """Formats in which each figure is written as well, some of `png`, `svg`. They need the package
    kaleido, a Chrome or Chromium, and some seconds."""
    own: dict[str, dict[str, Any]] = {}
    """Figures of your own by their title: each a mapping with `_target_`, the dotted name of a
    function that is called with the study and returns a Plotly figure, and with further arguments
    for it. Figures that installed packages register as entry points of the group `trialbus.figures`
    are drawn anyway."""

    def __post_init__(self) -> None:
        _check_names("figures", self.figures or (), FIGURES)
        _check_names("files", self.files, FILES)
        _check_names("images", self.images, IMAGES)
        for title, call in self.own.items():
            if not isinstance(call.get("_target_"), str):
                raise ValueError(  # noqa: TRY004 - msgspec passes on only ValueError
                    f"own.{title} has no _target_ (expected the dotted name of a function)"
                )

    def wants(self, figure: str) -> bool:
        """Return whether a figure of `FIGURES` is to be drawn."""
        return figure not in ON_DEMAND if self.figures is None else figure in self.figures


def _check_names(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{key} has {name!r} (expected some of {', '.join(known)})")

"""The command that generates the reference from the source: `./scripts/reference`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from trialbus_services.reference import asyncapi, config_page, messages_page, rooms

#: Paths of the generated pages, relative to the folder of the documentation, and their renderers.
PAGES: Mapping[str, Callable[[], str]] = {
    "asyncapi.json": asyncapi.render,
    "reference/config.md": config_page.render,
    "reference/messages.md": messages_page.render,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write every generated page, and the drawing of the rooms in an existing architecture.md."""
    parser = argparse.ArgumentParser(prog="reference", description=main.__doc__)
    parser.add_argument("docs", type=Path, help="folder of the documentation")
    folder = cast(Path, parser.parse_args(arguments).docs)
    for name, render in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(), encoding="utf-8")
    architecture = folder / "architecture.md"
    if architecture.exists():
        page = architecture.read_text(encoding="utf-8")
        architecture.write_text(rooms.replace_drawing(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

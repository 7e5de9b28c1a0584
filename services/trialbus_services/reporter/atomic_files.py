"""Write files that readers never see half of."""

from __future__ import annotations

import os
import re
from pathlib import Path


def folder_for(directory: Path, name: str) -> Path:
    """Make and return the folder of a study: called like it, without what paths do not allow."""
    folder = directory / (re.sub(r"[^\w.-]+", "_", name).strip(".") or "study")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path: Path, content: str | bytes) -> Path:
    """Replace a file, at once, and return its path."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.replace(path)
    return path

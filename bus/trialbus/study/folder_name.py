"""Folder names: the single rule from a study's name to the name of the study's folders."""

from __future__ import annotations

import hashlib
import re

_MAX_PLAIN = 100  # characters; with a suffix such as `_results.json` far below 255 bytes
_MAX_READABLE_BYTES = 60
_N_DIGITS = 16  # of the hash: 64 bits

#: Names that every file system keeps unchanged. Without capitals: on a file system that ignores
#: case, `A` and `a` are one folder.
_PLAIN = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_-])?")
#: Plain names that are not used: devices of Windows, names that files beside the folders may have,
#: and names with the form of a readable part and a hash.
_RESERVED = re.compile(
    rf"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(html|json)|.*-[0-9a-f]{{{_N_DIGITS}}}"
)


def name_folder(study: str) -> str:
    """Return the folder name of a study: the name of the study if that name is plain.

    A plain name consists of up to 100 lower-case Latin letters, digits, `_`, `-` and inner dots.
    Any other name is replaced by its readable part and a hash of the whole name. The result is one
    component of a path, at most 100 bytes long, never hidden, and different for different studies,
    also on a file system that ignores case.

    Args:
        study: Any text; empty for a trial that belongs to no study.

    Example:
        >>> name_folder("digits-v1.2"), name_folder("lr sweep/a")
        ('digits-v1.2', 'lr_sweep_a-958aada6806cdbca')
    """
    if len(study) <= _MAX_PLAIN and _PLAIN.fullmatch(study) and not _RESERVED.fullmatch(study):
        return study
    readable = re.sub(r"[^\w-]+", "_", study).encode()[:_MAX_READABLE_BYTES]
    prefix = readable.decode(errors="ignore").lstrip("-") or "stand-alone"
    digest = hashlib.sha256(study.encode(errors="surrogatepass")).hexdigest()
    return f"{prefix}-{digest[:_N_DIGITS]}"

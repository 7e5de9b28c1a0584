"""The rule from a study's name to the name of its folders and files, wherever these are."""

from __future__ import annotations

import hashlib
import re

_MAX_PLAIN = 100  # characters; with `_results.json` and the like after it, far below 255 bytes
_MAX_READABLE_BYTES = 60
_N_DIGITS = 16  # of the hash: 64 bits

#: Names that every file system keeps as they are. Capitals are not among them: where case does not
#: count, `A` and `a` are one folder.
_PLAIN = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_-])?")
#: Names that mean a device to Windows, those that files beside the folders may have, and those that
#: look as if this rule had made them.
_TAKEN = re.compile(
    rf"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.(html|json)|.*-[0-9a-f]{{{_N_DIGITS}}}"
)


def name_folder(study: str) -> str:
    """Return the folder name of a study: the study's own name where that is plain.

    Plain are small Latin letters, digits, `_`, `-` and inner dots, up to 100 of them. Of another
    name the readable part is kept and a hash of the whole name put after it. The result is one part
    of a path, no longer than 100 bytes, never hidden, and never that of another study, also where
    upper and lower case are the same.

    Args:
        study: Any text; empty for a trial that belongs to no study.

    Example:
        >>> name_folder("digits-v1.2"), name_folder("lr sweep/a")
        ('digits-v1.2', 'lr_sweep_a-958aada6806cdbca')
    """
    if len(study) <= _MAX_PLAIN and _PLAIN.fullmatch(study) and not _TAKEN.fullmatch(study):
        return study
    name = study.encode(errors="surrogatepass")
    readable = re.sub(r"[^\w-]+", "_", study).encode()[:_MAX_READABLE_BYTES]
    text = readable.decode(errors="ignore").lstrip("-") or "stand-alone"
    return f"{text}-{hashlib.sha256(name).hexdigest()[:_N_DIGITS]}"

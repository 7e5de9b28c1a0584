"""Requirements of tests on the machine, beside Python packages."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def skip_for_lack(lack: str) -> NoReturn:
    """Skip a test for lack of a program or package; in CI, which skips no test, fail the test."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{lack}, and CI skips no test")
    pytest.skip(lack)

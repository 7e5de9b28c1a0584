"""What the tests need of the machine, beside Python packages."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip a test for want of something; in CI, where nothing may be left out, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI leaves no test out")
    pytest.skip(what)

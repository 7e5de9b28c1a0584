"""Exit codes of commands, by the error or the end of the study."""

from __future__ import annotations

import pytest

from trialbus.errors import HubRefusedError, LogError, LogInUseError, SpecError, TrialbusError
from trialbus.messages import events
from trialbus_services.process import exit_codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError("study.n_trials", "is missing"), exit_codes.WRONG_INPUT),
        (LogError("the log is of another format"), exit_codes.WRONG_INPUT),
        (LogInUseError("/log/events.db", "17"), exit_codes.ALREADY_SERVED),
        (HubRefusedError(409, "another optimizer serves"), exit_codes.ALREADY_SERVED),
        (TrialbusError("the hub does not answer"), exit_codes.FAILED),
    ],
    ids=str,
)
def test_an_error_ends_a_command_with_the_code_of_the_error_s_class(
    error: TrialbusError, code: int
) -> None:
    assert exit_codes.get_error_code(error) == code


@pytest.mark.parametrize(
    ("reason", "best", "code"),
    [
        ("exhausted", True, exit_codes.DONE),
        ("stopped", True, exit_codes.DONE),
        ("exhausted", False, exit_codes.FAILED),
        ("failed", True, exit_codes.FAILED),
    ],
)
def test_a_study_without_a_result_ends_its_command_with_a_failure(
    reason: events.FinishReason, best: bool, code: int
) -> None:
    trial = events.BestTrial(number=0, values=[1.0], params={})
    finished = events.StudyFinished(
        study="s", submission="1", reason=reason, best_trials=[trial] if best else []
    )
    assert exit_codes.get_study_code(finished) == code

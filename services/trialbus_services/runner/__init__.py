"""OptunaRunner: runs the studies of a spec file from Python, on the same services as any study."""

from trialbus_services.runner.runner import OptunaRunner
from trialbus_services.runner.spec import RunnerSpec
from trialbus_services.runner.study_config import StudyConfig

__all__ = ["OptunaRunner", "RunnerSpec", "StudyConfig"]

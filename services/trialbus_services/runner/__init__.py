"""Runner: studies from Python, on the same services as any study."""

from trialbus_services.runner.optimization import optimize
from trialbus_services.runner.runner import OptunaRunner
from trialbus_services.runner.spec import RunnerSpec
from trialbus_services.runner.study_config import StudyConfig

__all__ = ["OptunaRunner", "RunnerSpec", "StudyConfig", "optimize"]

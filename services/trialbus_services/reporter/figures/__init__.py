"""The figures of a report. What they mean is Optuna's; how they look is ours."""

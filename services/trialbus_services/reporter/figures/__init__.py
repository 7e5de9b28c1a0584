"""Figures of reports: Optuna's visualizations in the style of the page."""

"""Each benchmark runs and yields all figures, of any size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = {
    "publish_p50_us",
    "publish_p99_us",
    "durable_events_per_s",
    "durable_events_per_s_4_subscribers",
    "durable_events_per_s_1000_publishers",
    "ratio_redis_aof_always",
    "latency_p50_ms",
    "latency_p99_ms",
    "ratio_curve_latency",
    "hub_rss_mb",
}


TRAINER_KEYS = {
    "report_p50_us",
    "report_p99_us",
    "loop_overhead_optuna_sqlite_percent",
    "loop_overhead_optuna_grpc_percent",
    "loop_overhead_ray_tune_percent",
    "cold_start_ms",
    "warm_start_ms",
}


STUDY_KEYS = {
    "first_trial_s",
    "last_trial_to_prompt_s",
    "overhead_per_trial_ms_cold",
    "overhead_per_trial_ms_warm",
    "ratio_wall_optuna_subprocess",
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("benchmark", "keys"),
    [("bus", KEYS), ("trainer", TRAINER_KEYS), ("study", STUDY_KEYS)],
    ids=["bus", "trainer", "study"],
)
def test_a_benchmark_yields_every_figure_or_says_why_not(benchmark: str, keys: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", benchmark, "--quick", "--json"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() >= keys
    for name in keys:
        if found[name] is None:
            assert name in found["skipped"]
        else:
            assert found[name] > 0


@pytest.mark.timeout(180)
def test_the_benchmark_of_sweeps_names_what_could_not_be_run() -> None:
    program = """
import json
from benchmarks import sweep
def fail():
    raise RuntimeError("no packages")
sweep._make_environment = fail
print(json.dumps(sweep.run(sweep.Size(4, 0.1))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures.keys() - figures["skipped"].keys() == {
        *("idle_percent", "compute_saved_percent", "skipped")
    }
    assert all("no packages" in reason for reason in figures["skipped"].values())
    assert 0 < figures["idle_percent"] < 100

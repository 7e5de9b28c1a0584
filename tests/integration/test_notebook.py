"""Optimize in a notebook: cells of a real kernel define the training, show progress and stop."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from support.processes import Bus
from support.until import until

jupyter_client = pytest.importorskip("jupyter_client")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
output_widget = pytest.importorskip("nbclient.output_widget")
pytest.importorskip("ipywidgets")

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore"),  # of Jupyter
]

DEFINITION = """
import pathlib
import time

FACTOR = 3

def train(trial):
    pathlib.Path(f"started-{trial.number}").touch()
    for step in range(4):
        time.sleep(PAUSE)
        trial.report(step, {"val/accuracy": FACTOR * trial.params["lr"]})
"""


def make_notebook(bus: Bus, *, pause_s: float) -> Any:
    call = f"""
from trialbus_services import optimize

study = optimize(
    train, n_trials=4, space={{"lr": "interval(0.0, 1.0)"}}, metric="val/accuracy",
    direction="maximize", study_name="cells",
    overrides=["bus.endpoint={bus.endpoint}", "bus.dir=log"],
)
"""
    sources = [
        f"PAUSE = {pause_s}",
        DEFINITION,
        call,
        "print(len(study.trials), study.best_value == FACTOR * study.best_params['lr'])",
    ]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])


@pytest.fixture(autouse=True)
def _private(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(bus.directory / name))


def test_a_training_of_a_cell_is_optimized_with_a_live_table(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = make_notebook(bus, pause_s=0.2)
    draw = output_widget.OutputWidget.output
    drawn: list[str] = []

    def keep(widget: Any, *arguments: Any) -> None:
        draw(widget, *arguments)
        drawn.append(str(widget.outputs))

    monkeypatch.setattr(output_widget.OutputWidget, "output", keep)
    client = nbclient.NotebookClient(
        notebook, timeout=90, resources={"metadata": {"path": str(bus.directory)}}
    )
    client.execute()
    assert notebook.cells[3].outputs[0]["text"] == "4 True\n"
    assert any("4 trials" in table and "events/s" in table for table in drawn)
    shown = str(notebook.cells[2].outputs)
    assert "all trials done" in shown
    assert "4 complete" in shown


def test_the_stop_button_ends_the_study_with_all_its_processes(bus: Bus) -> None:
    cells = make_notebook(bus, pause_s=60).cells
    manager, client = jupyter_client.manager.start_new_kernel(cwd=str(bus.directory))
    try:
        for cell in cells[:2]:
            client.execute_interactive(cell["source"], timeout=30)
        kernel = psutil.Process(manager.provisioner.pid)
        client.execute(cells[2]["source"])
        until(lambda: list(bus.directory.glob("started-*")), 60)
        started = kernel.children(recursive=True)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=30)["content"]
        while reply["status"] == "ok":  # of the cells before
            reply = client.get_shell_msg(timeout=30)["content"]
        assert reply["ename"] == "KeyboardInterrupt"
        until(lambda: not any(process.is_running() for process in started), 20)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

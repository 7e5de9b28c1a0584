"""The fork server of a service ends with the service, also while it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SERVICE = """
import multiprocessing, multiprocessing.forkserver
from trialbus_services.process.fork_servers import end_fork_server

end_fork_server()  # without a server
multiprocessing.get_context("forkserver").set_forkserver_preload(["slow_module"])
multiprocessing.forkserver.ensure_running()
print(multiprocessing.forkserver._forkserver._forkserver_pid)
end_fork_server()
"""


def test_a_fork_server_that_imports_ends_with_its_service(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(60)")
    command = [sys.executable, "-c", SERVICE]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    assert not Path("/proc", done.stdout.strip()).exists()

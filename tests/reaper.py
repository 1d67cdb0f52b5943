"""A process beside pytest that ends what the run has started, once pytest is gone by whatever signal.

Servers are started in sessions of their own, so that no signal to pytest's process group reaches them, and Python runs
no `finally` on SIGTERM, SIGHUP or SIGKILL. The reaper knows the run's processes by a variable in their environment, and
those that were given an environment of their own, as Label Studio is, by a working directory in the run's folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

MARK = "DADC_TEST_RUN"
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL


def start_reaper(folder: Path) -> None:
    """Mark what this process starts from now on, and have it ended when this process is gone. folder: of its files."""
    os.environ[MARK] = uuid.uuid4().hex
    command = [sys.executable, __file__, str(os.getpid()), os.environ[MARK], str(folder.resolve())]
    subprocess.Popen(
        command,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # a pipe of the caller would stay open
        stderr=subprocess.DEVNULL,
    )


def main(parent: int, mark: str, folder: Path) -> None:
    """Wait until `parent` is gone, then end its processes and those that they start meanwhile."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    began = time.time()
    while os.getppid() == parent:
        time.sleep(0.5)
    import psutil

    def left() -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                # A shell of somebody who looks at the folder has a terminal.
                below = process.terminal() is None and process.create_time() >= began - 1
                if process.environ().get(MARK) == mark or (below and Path(process.cwd()).is_relative_to(folder)):
                    found.append(process)
        return found

    deadline = time.monotonic() + GRACE_SECONDS
    while processes := left():
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate() if time.monotonic() < deadline else process.kill()
        time.sleep(0.2)
        if time.monotonic() > deadline + GRACE_SECONDS:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

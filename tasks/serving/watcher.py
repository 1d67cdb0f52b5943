"""The thread of the model server that looks at Label Studio when it is told that somebody annotated something."""

from __future__ import annotations

import logging
import threading
import time

from data.layout import Workspace
from tasks.labelling.client import connect
from tasks.labelling.http import LabellingError
from tasks.record.sightings import Watch
from tasks.serving.target import collecting
from tasks.workspace.services import StackError, find_services

HURRY = 10.0  # seconds that Label Studio has for each answer
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds between two looks, each of which sees all that was made until then; growing
# where one fails. After the last the next pull sees what was missed.

logger = logging.getLogger(__name__)


class Watcher:
    """Looks once for all that it was told since the last look. Who tells it never waits, however often."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._told, self._lock = workspace, threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def hurry(self) -> None:
        """Have it look."""
        self._told.set()
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        watch = Watch()
        while True:
            self._told.wait()
            self._told.clear()
            for pause in PAUSES:
                try:
                    round_ = collecting(self._workspace)
                    if round_ is not None:
                        watch.look(connect(find_services(self._workspace.root), hurry=HURRY), round_)
                    break
                except (StackError, LabellingError, OSError, ValueError) as error:
                    watch = Watch()
                    logger.warning("what was annotated could not be looked at yet: %s", type(error).__name__)
                    time.sleep(pause)
            time.sleep(PAUSES[0])

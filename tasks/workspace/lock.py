"""One command at a time works on a campaign."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from data.layout import Workspace
from tasks.workspace.git import WorkspaceError

WAIT_SECONDS = 1.0  # seconds that a command waits for another before it says so


class Busy(WorkspaceError):
    """Another command works on the campaign."""


@contextmanager
def lock(workspace: Workspace, patience: float = WAIT_SECONDS) -> Iterator[None]:
    """One writer per workspace; Busy if there is another after `patience` seconds. A flow within a flow shares it."""
    folder = workspace.local / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / "campaign.lock", is_singleton=True, thread_local=False)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        raise Busy("another dadc command works on this campaign; wait until it has ended") from None
    try:
        yield
    finally:
        held.release()


def busy(workspace: Workspace) -> bool:
    """Whether another command works on the workspace; who asks holds it for less than the moment that others wait."""
    try:
        with lock(workspace, 0.0):
            return False
    except Busy:
        return True

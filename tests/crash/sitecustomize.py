"""Kills processes at a named point of their work. Python runs this file at its start where its folder is on PYTHONPATH,
so that DVC and the stages are reached too; the project itself knows nothing of it.

A point is `who: what`, such as `dadc: write data/rounds/001/params.yaml.tmp`: something is about to be opened for
writing, renamed, started, or asked of a server. Before one thing is after the one before it.

CRASH_ROOT   workspace whose files are points
CRASH_LOG    file to which each point is appended when it is first reached in a process
CRASH_AT     point at which to kill
CRASH_WHOM   what is killed: `self`, `dvc` (above a stage), `dadc` (above all; what it started lives on), `all`, or the
             number of a process group, such as a server's
CRASH_TOP    pid of `dadc`
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR
SKIPPED = (".git/", ".dvc/tmp/", ".dadc/locks/", ".dadc/prefect/", ".dadc/logs/", "mlruns/", "mlartifacts/")
WRITING = ("add", "commit", "tag")  # what Git is started for that changes something
_seen: set[str] = set()


def install(who: str) -> None:
    """Watch this process."""
    root = os.environ["CRASH_ROOT"].rstrip("/") + "/"
    busy = False

    def audit(event: str, details: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy or event not in ("open", "os.rename", "subprocess.Popen"):
            return
        busy = True
        try:
            what = _what(event, details, root)
            if what:
                reach(f"{who}: {what}")
        finally:
            busy = False

    sys.addaudithook(audit)


def reach(point: str) -> None:
    """Say that a process comes by; it may end here."""
    if point in _seen:
        return
    _seen.add(point)
    if log := os.environ.get("CRASH_LOG"):
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(point + "\n")
    if point == os.environ.get("CRASH_AT"):
        _kill(os.environ.get("CRASH_WHOM", "self"))


def around(owner: Any, name: str, who: str, told: Callable[..., str]) -> None:
    """Make points before and after a method; `told` gives the point's name, or nothing, from its arguments."""
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        what = told(*args, **kwargs)
        if not what:
            return inner(*args, **kwargs)
        reach(f"{who}: before {what}")
        answer = inner(*args, **kwargs)
        reach(f"{who}: after {what}")
        return answer

    setattr(owner, name, outer)


def _what(event: str, details: tuple[Any, ...], root: str) -> str:
    if event == "subprocess.Popen":
        words = [str(word) for word in details[1]]
        named = [word for word in words[1:] if not word.startswith(("-", "/"))][:2]
        program = os.path.basename(words[0])  # noqa: PTH119
        if program == "ldconfig" or (program == "git" and (named[0] not in WRITING or "--list" in words)):
            return ""
        return f"run {program} {' '.join(named)}"
    if event == "open":
        path, _, flags = details
        if not isinstance(flags, int) or not flags & WRITES:
            return ""
    else:
        path = details[1]
    try:
        path = os.path.join(os.getcwd(), os.fsdecode(path))  # noqa: PTH109, PTH118
    except TypeError:  # a descriptor
        return ""
    if not path.startswith(root) or path[len(root) :].startswith(SKIPPED) or "__pycache__" in path:
        return ""
    name = re.sub(r"^\.(dvc/cache|dadc/remote)/.*", r".\1", path[len(root) :])
    name = re.sub(r"/\.[\w-]{20,}\.tmp$", "/….tmp", name)  # DVC's, of random names
    return f"{'write' if event == 'open' else 'rename'} {name}"


def _kill(whom: str) -> None:
    import psutil

    if whom.isdigit():
        os.killpg(int(whom), signal.SIGKILL)
        return
    me, top = psutil.Process(), psutil.Process(int(os.environ["CRASH_TOP"]))
    if whom == "self":
        doomed = [me]
    elif whom == "dadc":
        doomed = [top]
    elif whom == "dvc":
        doomed = [p for p in me.parents() if "dvc" in p.cmdline()]
    else:
        doomed = [top, *[p for p in top.children(recursive=True) if p != me], me]
    for process in doomed:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if "CRASH_ROOT" in os.environ and "-m" in sys.orig_argv:
    install(sys.orig_argv[sys.orig_argv.index("-m") + 1])

"""Servers as process groups: started apart from us, found again by pid and start, ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LOOPBACK = "127.0.0.1"
CLOCK = 2.0  # seconds by which a process's start time may differ when it is read again
BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux's

_children: list[subprocess.Popen[bytes]] = []  # kept: Python warns of a child that is forgotten while it runs


@dataclass(frozen=True)
class Leader:
    """The first process of a group; pids are reused, so its start is part of the name."""

    pid: int
    started: float  # seconds since 1970, by the clock of then
    boot: str = ""  # of the machine, and the clock tick after it, which no change of the clock moves; where there are
    tick: int = 0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Leader:
        """As stack.json has it."""
        known = str(record.get("boot", "")), int(record.get("tick", 0))
        return cls(int(record["pid"]), float(record["started"]), *known)

    @property
    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return self._same(process) and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def group(self) -> list[psutil.Process]:
        """The living members of the group; also when the leader itself is gone, none when its pid is another's."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if not self._same(psutil.Process(self.pid)):
                return []
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                if (
                    os.getpgid(process.pid) == self.pid
                    and self._before(process)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def listens(self) -> set[tuple[str, int]]:
        """The addresses and TCP ports on which the group listens."""
        found: set[tuple[str, int]] = set()
        for process in self.group():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.add((connection.laddr.ip, connection.laddr.port))
        return found

    def _same(self, process: psutil.Process) -> bool:
        if self.boot:
            return _start_of(process.pid) == (self.boot, self.tick)
        return bool(abs(process.create_time() - self.started) < CLOCK)

    def _before(self, process: psutil.Process) -> bool:
        if self.boot:
            boot, tick = _start_of(process.pid)
            return boot == self.boot and tick >= self.tick
        return bool(process.create_time() >= self.started - CLOCK)


def _start_of(pid: int) -> tuple[str, int]:
    """The machine's boot and the tick after it at which a process began; nothing where the system does not tell.
    NoSuchProcess if it is gone."""
    if not BOOT.exists():
        return "", 0
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return BOOT.read_text().strip(), int(told.rpartition(")")[2].split()[19])


def start(command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path) -> Leader:
    """Start a server in a session of its own; what it says goes to `log`, the last log to `log.old`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".old"))
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(child)
    return Leader(child.pid, psutil.Process(child.pid).create_time(), *_start_of(child.pid))


def end(leaders: Iterable[Leader], patience: float = 10.0) -> None:
    """End these groups: TERM, `patience` seconds, KILL. Processes that are not theirs are left alone."""
    living = [leader for leader in leaders if leader.group()]
    for what in (signal.SIGTERM, signal.SIGKILL):
        for leader in living:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, what)
        deadline = time.monotonic() + patience
        while (living := [leader for leader in living if leader.group()]) and time.monotonic() < deadline:
            time.sleep(0.05)
    for child in _children:
        child.poll()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: Iterable[int] = ()) -> int:
    """A free port of 127.0.0.1, none of `taken`."""
    avoid = set(taken)
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            trial.bind((LOOPBACK, 0))
            port: int = trial.getsockname()[1]
        if port not in avoid:
            return port

"""The local services of a campaign: Label Studio, Prefect, MLflow and the model server, on 127.0.0.1."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data.files import write_whole
from data.layout import Workspace
from flows.stack.health import Health, check_given, check_token, health_of
from flows.stack.processes import LOOPBACK, Leader, end, free_port, is_free, start
from flows.stack.programs import _check_label_studio, _command, _make_secrets
from tasks.workspace.services import (
    NAMES,
    VARIABLES,
    Services,
    StackError,
    configured_url,
    find_services,
    read_stack,
)

ALL = tuple(NAMES)
LIMIT = 300.0  # seconds that a cold start may take
TRIES = 3  # ports tried where another program takes the one that was free a moment ago


class PortTaken(StackError):
    """Another program listens where a service was to: two that start at once may be given the same free port."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(f"{said}\nits port is taken by another program")
        self.name = name


def up(
    root: Path,
    ports: Mapping[str, int] | None = None,
    *,
    only: Collection[str] = ALL,
    say: Callable[[str], None] = print,
) -> Services:
    """Start what is not up, together, and wait until all answer. A second call changes nothing that is healthy.

    ports: wanted ports by the names in `services.NAMES`; the others are the last ones used, or free ones.
    Raises StackError, with nothing left that this call started, when a port is taken, a service dies or takes too
    long; ServiceDown when one that the environment gives does not answer.
    """
    root = root.resolve()
    named = dict(ports or {})
    for name in (*named, *only):
        if name not in NAMES:
            raise ValueError(f"a service is one of {', '.join(ALL)}, got {name!r}")
    with _alone(root):
        for name in only:
            if name in named and configured_url(name):
                raise StackError(f"{VARIABLES[name]} gives {NAMES[name]}: unset it, or name no port for it")
            check_given(name)
        local = [name for name in only if not configured_url(name)]
        known = {name: Leader.of(record) for name, record in read_stack(root)["services"].items()}
        running = {name: leader for name in local if (leader := known.get(name)) and _worth(leader, root, name)}
        _check_moved(root, running, named)
        dead = [name for name in local if name not in running]
        if "label_studio" in dead:
            _check_label_studio()
        chosen = _choose(root, dead, named, say)
        _make_secrets(root)
        end(leader for name in dead if (leader := known.get(name)))
        for left in reversed(range(TRIES)):
            started: dict[str, Leader] = {}
            try:
                for name in dead:
                    started[name] = _start(root, name, chosen[name])
                _wait(root, running | started, say)
                break
            except BaseException as error:
                end(started.values())
                _forget(root, started)
                if not isinstance(error, PortTaken) or not left or error.name in named:
                    raise
                say(f"{NAMES[error.name]}'s port {chosen[error.name]} was taken meanwhile; starting once more")
                chosen = _choose(root, dead, named, say)
        if "label_studio" in local:
            check_token(root)
    return find_services(root)


def down(root: Path, *, say: Callable[[str], None] = print) -> None:
    """End what `up` started in this workspace and nothing else; once ended, again changes nothing."""
    root = root.resolve()
    if not (Workspace(root).local / "stack.json").exists():
        say("no service was started here")
        return
    with _alone(root):
        leaders = {name: Leader.of(record) for name, record in read_stack(root)["services"].items()}
        end(leaders.values())
        _forget(root, leaders)
    say(f"stopped {', '.join(NAMES[name] for name in leaders)}" if leaders else "no service is up")


def health(root: Path) -> dict[str, Health]:
    """How each service does now."""
    return {name: health_of(root.resolve(), name) for name in ALL}


def _start(root: Path, name: str, port: int) -> Leader:
    """Start one service and write it down at once, so that `down` knows it whatever happens to us."""
    local = Workspace(root).local
    command, environment = _command(root, name, port)
    log = local / "logs" / f"{name}.log"
    leader = start(command, folder=root, environment=environment, log=log)
    url = f"http://{LOOPBACK}:{port}" + ("/api" if name == "prefect" else "")
    stack = read_stack(root)
    stack["services"][name] = {
        "url": url,
        "pid": leader.pid,
        "started": leader.started,
        "boot": leader.boot,
        "tick": leader.tick,
        "port": port,
        "log": str(log.relative_to(root)),
    }
    stack["ports"][name] = port
    _write(local / "stack.json", stack)
    return leader


def _worth(leader: Leader, root: Path, name: str) -> bool:
    """Whether to go on with a service that was started: it answers, or may still be on its way."""
    young = time.time() - leader.started < LIMIT
    return leader.alive and (young or health_of(root, name).state == "up")


def _check_moved(root: Path, running: Collection[str], named: Mapping[str, int]) -> None:
    records = read_stack(root)["services"]
    for name in running:
        port = records[name]["port"]
        if named.get(name, port) != port:
            raise StackError(f"{NAMES[name]} is up on port {port}; `dadc down` first, to move it to {named[name]}")


def _choose(root: Path, dead: Collection[str], named: Mapping[str, int], say: Callable[[str], None]) -> dict[str, int]:
    last = read_stack(root)["ports"]
    chosen: dict[str, int] = {}
    for name in sorted(dead, key=lambda n: n not in named):
        if name in named:
            if named[name] in chosen.values() or not is_free(named[name]):
                raise StackError(f"port {named[name]}, named for {NAMES[name]}, is taken; name another, or none")
            chosen[name] = named[name]
        elif name in last and last[name] not in chosen.values() and is_free(last[name]):
            chosen[name] = last[name]
        else:
            chosen[name] = free_port({*chosen.values(), *last.values()})
            if name in last:
                say(f"{NAMES[name]} moves from port {last[name]}, which is taken now, to {chosen[name]}")
    return chosen


def _wait(root: Path, leaders: Mapping[str, Leader], say: Callable[[str], None]) -> None:
    began = told = time.monotonic()
    waiting = dict(leaders)
    while waiting:
        for name, leader in list(waiting.items()):
            record = read_stack(root)["services"][name]
            if not leader.alive:
                said = f"{NAMES[name]} ended while it started; its log says:\n{_last(root / record['log'])}"
                raise StackError(said) if is_free(record["port"]) else PortTaken(name, said)
            if health_of(root, name).state == "up":
                say(f"{NAMES[name]} answers at {record['url']} ({time.monotonic() - began:.0f} s)")
                del waiting[name]
                continue
            _check_bound(name, record["port"], leader)
        now = time.monotonic()
        if waiting and now - began > LIMIT:
            name = next(iter(waiting))
            log = root / read_stack(root)["services"][name]["log"]
            raise StackError(f"{NAMES[name]} does not answer after {LIMIT:.0f} s; its log says:\n{_last(log)}")
        if waiting and now - told > 15:
            say(f"waiting for {', '.join(NAMES[name] for name in waiting)} ({now - began:.0f} s)")
            told = now
        time.sleep(0.2)


def _check_bound(name: str, port: int, leader: Leader) -> None:
    """A server must listen on its port of 127.0.0.1 and on nothing that other machines can reach."""
    for address, bound in leader.listens():
        if address != LOOPBACK or bound != port:
            said = f"{NAMES[name]} was to listen on {LOOPBACK}:{port} and listens on {address}:{bound}"
            raise StackError(said) if is_free(port) or address != LOOPBACK else PortTaken(name, said)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    folder = Workspace(root).local / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    held = FileLock(folder / "stack.lock")
    try:
        held.acquire(timeout=LIMIT)
    except Timeout:
        raise StackError("another `dadc up` or `dadc down` works here; wait until it has ended") from None
    try:
        yield
    finally:
        held.release()


def _forget(root: Path, names: Collection[str]) -> None:
    """Take ended services out of stack.json; their ports stay, to be used again."""
    stack = read_stack(root)
    stack["services"] = {name: record for name, record in stack["services"].items() if name not in names}
    _write(Workspace(root).local / "stack.json", stack)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _last(log: Path, lines: int = 12) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(line for line in said if line.strip()) if len(said) <= lines else "\n".join(said[-lines:])

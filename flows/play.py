"""The page of the players, with the campaign as it stands: what the steps make of Label Studio, again and again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data.layout import Round, Workspace
from data.records import Candidate

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tasks.record.record import Record

LOOPBACK = "127.0.0.1"


def watch(root: Path) -> Callable[[], list[Candidate]]:
    """A function that gives, whenever it is called, every candidate of the campaign: of closed rounds from their
    shards, of the open one from Label Studio, judged and validated.

    It keeps a record of its own in memory: it is ahead of `dadc collect`, and never in its way.
    """
    workspace = Workspace(root)
    shards: dict[Path, tuple[int, list[Candidate]]] = {}
    latest: tuple[Record, list[Candidate]] | None = None

    def look() -> list[Candidate]:
        nonlocal latest
        from data.shards import read_candidates
        from tasks.serving.target import collecting
        from tasks.workspace.rounds import read_index

        open_round = collecting(workspace)
        candidates: list[Candidate] = []
        for name in sorted(read_index(workspace)["collected"]):
            round_ = workspace.round(int(name))
            if round_.aborted.exists() or not round_.candidates.exists() or round_ == open_round:
                continue
            stamp = round_.candidates.stat().st_mtime_ns
            if shards.get(round_.candidates, (0,))[0] != stamp:
                shards[round_.candidates] = (stamp, read_candidates(round_.candidates))
            candidates += shards[round_.candidates][1]
        if open_round is not None:
            latest = _up_to_date(open_round, latest)
            candidates += latest[1]
        return candidates

    return look


def _up_to_date(round_: Round, latest: tuple[Record, list[Candidate]] | None) -> tuple[Record, list[Candidate]]:
    """The open round's record with what is new in Label Studio, and what it comes to."""
    from flows.candidates import candidates_now
    from tasks.labelling.client import connect
    from tasks.record.inbox import new_lines
    from tasks.record.record import Record
    from tasks.workspace.services import find_services

    known = latest if latest and latest[0].round == round_ else None
    before = known[0] if known else Record.read(round_)
    new = new_lines(connect(find_services(round_.workspace.root)), before)
    if known and not new:
        return known
    record = before.extended(new)
    return record, candidates_now(record)


def app() -> FastAPI:
    """What each of several processes serves; run at the workspace's root."""
    from tasks.serving.play_server import app as page

    return page(Path.cwd(), watch(Path.cwd()))


def check_address(host: str, port: int) -> None:
    """ValueError if no server can listen there."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
            trial.bind(address)
    except OSError as error:
        raise ValueError(
            f"the page cannot listen on {host}:{port} ({error.strerror}); choose another --port or --host"
        ) from error


def play(root: Path, port: int, host: str = LOOPBACK, workers: int = 1) -> None:
    """Serve the page until told to stop."""
    import uvicorn

    check_address(host, port)
    os.chdir(root)
    page = app()  # here, so that what is missing is said before a process is started
    print(f"the page is at http://{host}:{port}", flush=True)
    uvicorn.run(
        page if workers == 1 else "flows.play:app",
        factory=workers > 1,
        host=host,
        port=port,
        workers=workers,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,  # Gradio's pages hold a connection open
    )

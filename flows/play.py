"""The page of the players, with the campaign as it stands: what the steps make of Label Studio, again and again."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from data.layout import Round, Workspace
from data.records import Candidate

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class _Apart(Round):
    """A round whose record is a copy, so that one can look ahead of `dadc collect` without being in its way."""

    copy: Path

    @property
    def annotations(self) -> Path:
        return self.copy


def watch(root: Path) -> Callable[[], list[Candidate]]:
    """Tells, whenever it is called, every candidate of the campaign: of closed rounds from their shards, of the open
    one from Label Studio, judged and validated, with nothing written where others read."""
    folder = TemporaryDirectory(prefix="dadc-play-")
    workspace = Workspace(root)
    shards: dict[Path, tuple[int, list[Candidate]]] = {}
    latest: dict[int, list[Candidate]] = {}

    def look() -> list[Candidate]:
        from data.shards import read_candidates
        from tasks.serving.target import collecting
        from tasks.workspace.rounds import read_index

        open_round = collecting(workspace)
        found: list[Candidate] = []
        for name in sorted(read_index(workspace)["collected"]):
            round_ = workspace.round(int(name))
            if round_.aborted.exists() or not round_.candidates.exists() or round_ == open_round:
                continue
            stamp = round_.candidates.stat().st_mtime_ns
            if shards.get(round_.candidates, (0,))[0] != stamp:
                shards[round_.candidates] = (stamp, read_candidates(round_.candidates))
            found += shards[round_.candidates][1]
        if open_round is not None:
            copy = Path(folder.name) / f"{open_round.name}.jsonl"
            new = _pull(_Apart(workspace, open_round.number, copy))
            if new or open_round.number not in latest:
                latest[open_round.number] = _candidates(_Apart(workspace, open_round.number, copy))
            found += latest[open_round.number]
        return found

    return look


def _pull(round_: _Apart) -> int:
    from tasks.labelling.client import connect
    from tasks.pull import pull
    from tasks.workspace.services import find_services

    return pull(connect(find_services(round_.workspace.root)), round_)


def _candidates(round_: _Apart) -> list[Candidate]:
    import json

    from tasks.config.params import read
    from tasks.judge import judge
    from tasks.record.candidates import candidates
    from tasks.record.history import stats_before
    from tasks.record.votes import cast_votes
    from tasks.validate import validate
    from tasks.workspace.rounds import read_index

    params, splits = read(round_.params), json.loads(round_.workspace.splits.read_text(encoding="utf-8"))
    target = round_.workspace.root / read_index(round_.workspace)["collected"][round_.name]["target"]
    judged = judge(candidates(round_, params, splits), target)
    return validate(judged, cast_votes(round_), params.validate_, stats_before(round_))


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

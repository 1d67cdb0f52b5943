"""The model server: what the open round's target makes of an image.

Label Studio asks it when an annotator does, and simulated annotators ask it as well. It answers quickly and binds
nothing: what counts is judged later, on the frozen target. Nothing that a request holds is used as a file's name or an
address, and nothing of it is logged; size, time and number of what it works on at once are bounded. Label Studio also
tells it that something was annotated: it notes who did what, and the next `collect` of `dadc schedule` comes sooner.
"""

from __future__ import annotations

import argparse
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fastapi import BackgroundTasks, Body, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.concurrency import run_in_threadpool

from data.layout import Workspace
from data.shards import decode_png
from tasks.config.params import read
from tasks.engine import checkpoint
from tasks.labelling import drawing
from tasks.labelling.client import connect
from tasks.labelling.http import LabellingError
from tasks.record.candidates import edit_bases
from tasks.serving.body_limit import BodyLimit
from tasks.serving.questions import Answered, Question, find_draft
from tasks.serving.target import Target, current
from tasks.serving.watcher import Watcher
from tasks.workspace.rounds import read_index
from tasks.workspace.services import ServiceDown, StackError, find_services

MAX_BODY = 2 * 2**20  # bytes
HURRY = 5.0  # seconds that Label Studio has for each; an annotator waits
READING = 30.0  # seconds that a body may take
ASKING = 32  # annotators whose drawings are waited for at once; the next is told to ask again


def app(root: Path, user: str, password: str, *, renewable: bool = False) -> FastAPI:
    """The server of the workspace at `root`. Everything but /health and /webhook wants this log-in. renewable: the
    password is the one that the workspace has at the time."""
    workspace = Workspace(root)
    target = Target(workspace)
    basic, asking = HTTPBasic(realm="dadc"), threading.BoundedSemaphore(ASKING)
    answered = Answered()
    watcher = Watcher(workspace)

    def let_in(given: HTTPBasicCredentials = Depends(basic)) -> None:  # noqa: B008
        expected = (find_services(root).model_password if renewable else None) or password
        right = secrets.compare_digest(given.username.encode(), user.encode())
        if not (secrets.compare_digest(given.password.encode(), expected.encode()) and right):
            raise HTTPException(401, "user or password is wrong", {"WWW-Authenticate": "Basic"})

    server = FastAPI(title="dadc model server", docs_url=None, redoc_url=None, openapi_url=None)
    server.add_middleware(BodyLimit, limit=MAX_BODY, seconds=READING)
    guarded = [Depends(let_in)]

    @server.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "target"}

    @server.post("/setup", dependencies=guarded)
    def setup(later: BackgroundTasks) -> dict[str, str]:
        # Label Studio gives up after three seconds, and a photo network may take longer to load.
        path = current(workspace)
        if path is not None:
            later.add_task(target.get)
        return {"model_version": f"round {path.parent.name}" if path else "none"}

    @server.post("/webhook")  # Label Studio sends no log-in with it; nothing of it is read
    async def webhook() -> dict[str, str]:
        workspace.local.mkdir(exist_ok=True)
        workspace.hint.touch()
        watcher.hurry()
        return {}

    @server.post("/predict", dependencies=guarded)
    def predict(body: Any = Body()) -> dict[str, Any]:  # noqa: B008
        question = Question.of(body)
        if question is None:
            return {"results": []}
        if asking.acquire(blocking=False):
            try:
                text, score = _say(workspace, target, question, answered)
            finally:
                asking.release()
        else:
            text, score = "Too many ask at once: ask again in a moment", 0.0
        shown = {"result": question.answer(text), "score": score, "model_version": _version(target)}
        return {"results": [shown]}

    @server.post("/answer", dependencies=guarded)
    async def answer(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(_answer, target, await request.body())

    return server


def _answer(target: Target, blob: bytes) -> dict[str, Any]:
    try:
        _, card = target.get()
        given = target.answer(decode_png(blob, card.channels))
    except FileNotFoundError as error:
        raise HTTPException(503, str(error)) from error
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return {
        "answer": given.answer,
        "class": given.class_,
        "probability": given.probability,
        "probabilities": given.probabilities,
        "round": given.round,
    }


def _say(workspace: Workspace, target: Target, question: Question, answered: Answered) -> tuple[str, float]:
    """What the annotator reads, and the answer's probability. A fault is a sentence for the annotator too."""
    try:
        _, card = target.get()
        result = find_draft(connect(find_services(workspace.root), hurry=HURRY), question, answered)["result"]
        base = _base(workspace, card, question.key)
        pixels = drawing.drawing(result, card.size, card.channels) if base is None else drawing.edited(result, base)
        given = target.answer(pixels)
    except ValueError as error:
        return f"The model saw nothing: {error}", 0.0
    except FileNotFoundError as error:
        return f"There is no model to ask: {error}", 0.0
    except (StackError, LabellingError) as error:
        return f"The model could not see the drawing: {type(error).__name__}", 0.0
    times = answered.times.get(question.field, 1)
    return f"{given}{f' · answer {times}' if times > 1 else ''}", given.probability


def _base(workspace: Workspace, card: checkpoint.Card, key: str) -> torch.Tensor | None:
    """The seed image that the editing task with this key is about; None for any other task."""
    collecting = sorted(read_index(workspace)["collected"])
    if not collecting:
        return None
    round_ = workspace.round(int(collecting[-1]))
    params = read(round_.params)
    return edit_bases(round_, params, card.channels).get(key)


def _version(target: Target) -> str:
    try:
        return f"round {target.get()[1].round:03d}"
    except FileNotFoundError:
        return "none"


def serve(root: Path, port: int) -> None:
    """Serve the workspace at `root` on 127.0.0.1 until told to stop."""
    import uvicorn

    services = find_services(root)
    if not (services.model_user and services.model_password):
        raise ServiceDown("model", None, "it has no log-in yet")
    torch.set_num_threads(1)
    threading.Thread(target=_warm, args=(root,), daemon=True).start()
    server = app(root, services.model_user, services.model_password, renewable=True)
    uvicorn.run(server, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def _warm(root: Path) -> None:
    """Ask Label Studio once, so that no annotator waits until its client is imported."""
    with suppress(StackError, LabellingError):  # who asks is told
        connect(find_services(root), hurry=HURRY)


def main() -> None:
    """`python -m tasks.serving.model_server --port P`, run at a workspace's root."""
    parser = argparse.ArgumentParser(prog="python -m tasks.serving.model_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="on 127.0.0.1")
    serve(Path.cwd(), parser.parse_args().port)


if __name__ == "__main__":
    main()

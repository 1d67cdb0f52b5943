"""The model server: what the open round's target makes of an image.

Label Studio asks it when an annotator does, and simulated annotators ask it as well. It answers quickly and binds
nothing: what counts is judged later, on the frozen target. Nothing that a request holds is used as a file's name or an
address, and nothing of it is logged; size, time and number of what it works on at once are bounded. Label Studio also
tells it that something was annotated, which hurries the next `collect` of `dadc schedule`.
"""

from __future__ import annotations

import argparse
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
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
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.http import LabellingError
from tasks.labelling.projects import NOTE, SAYS
from tasks.record.candidates import edit_bases
from tasks.serving.body_limit import BodyLimit
from tasks.serving.target import Target, current
from tasks.workspace.rounds import read_index
from tasks.workspace.services import ServiceDown, StackError, find_services

MAX_BODY = 2 * 2**20  # bytes
PATIENCE = 7.0  # seconds to wait for the drawing; the page saves it every 5
LOOK = 0.15  # seconds between two looks
DUE, CLOSELY = 4.7, 0.05  # from so many seconds on, when the page saves, it looks so often
HURRY = 5.0  # seconds that Label Studio has for each; an annotator waits
READING = 30.0  # seconds that a body may take
ASKING = 32  # annotators whose drawings are waited for at once; the next is told to ask again
REMEMBERED = 10_000  # fields of which it is known which form of a draft answered them last


@dataclass(frozen=True)
class Question:
    """What an annotator typed, as the page sends it: into which field, and all that stands there now."""

    task: int
    key: str  # of the task
    field: str  # its region's id, which the page made up
    text: object


Answered = dict[str, tuple[object, object]]  # field → the draft that answered it last: its id, and when it was saved


def app(root: Path, user: str, password: str) -> FastAPI:
    """The server of the workspace at `root`. Everything but /health and /webhook wants this log-in."""
    workspace = Workspace(root)
    target = Target(workspace)
    basic, asking = HTTPBasic(realm="dadc"), threading.BoundedSemaphore(ASKING)
    answered: Answered = {}

    def let_in(given: HTTPBasicCredentials = Depends(basic)) -> None:  # noqa: B008
        right = secrets.compare_digest(given.username.encode(), user.encode())
        if not (secrets.compare_digest(given.password.encode(), password.encode()) and right):
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
        return {}

    @server.post("/predict", dependencies=guarded)
    def predict(body: Any = Body()) -> dict[str, Any]:  # noqa: B008
        asked = _asked(body)
        if asked is None:
            return {"results": []}
        if asking.acquire(blocking=False):
            try:
                text, score = _say(workspace, target, asked, answered)
            finally:
                asking.release()
        else:
            text, score = "Too many ask at once: ask again in a moment", 0.0
        says = {
            "id": "says",
            "from_name": SAYS,
            "to_name": NOTE,
            "type": "textarea",
            "value": {"text": [text]},
        }
        return {"results": [{"result": [says], "score": score, "model_version": _version(target)}]}

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


def _asked(body: object) -> Question | None:
    """What an annotator asks; None for the calls that Label Studio makes by itself."""
    parameters = body.get("params") if isinstance(body, dict) else None
    context = parameters.get("context") if isinstance(parameters, dict) else None
    tasks = body.get("tasks") if isinstance(body, dict) else None
    said = _fields(context.get("result") if isinstance(context, dict) else None)
    if not said or not isinstance(tasks, list) or len(tasks) != 1:
        return None
    task = tasks[0] if isinstance(tasks[0], dict) else {}
    number, data = task.get("id"), task.get("data")
    key = data.get("key") if isinstance(data, dict) else None
    return Question(number, str(key), *said.popitem()) if isinstance(number, int) else None


def _fields(result: object) -> dict[str, object]:
    """The regions of the field in which one asks: id → what stands in it."""
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    return {
        item["id"]: item["value"].get("text")
        for item in items
        if item.get("from_name") == SAYS and isinstance(item.get("id"), str) and isinstance(item.get("value"), dict)
    }


def _say(workspace: Workspace, target: Target, question: Question, answered: Answered) -> tuple[str, float]:
    """What the annotator reads, and the answer's probability. A fault is a sentence for the annotator too."""
    try:
        _, card = target.get()
        result = _drawn(connect(find_services(workspace.root), hurry=HURRY), question, answered)
        base = _base(workspace, card, question.key)
        pixels = drawing.drawing(result, card.size, card.channels) if base is None else drawing.edited(result, base)
        given = target.answer(pixels)
    except ValueError as error:
        return f"The model saw nothing: {error}", 0.0
    except FileNotFoundError as error:
        return f"There is no model to ask: {error}", 0.0
    except (StackError, LabellingError) as error:
        return f"The model could not see the drawing: {type(error).__name__}", 0.0
    return str(given), given.probability


def _base(workspace: Workspace, card: checkpoint.Card, key: str) -> torch.Tensor | None:
    """The seed image that the editing task with this key is about; None for any other task."""
    collecting = sorted(read_index(workspace)["collected"])
    if not collecting:
        return None
    round_ = workspace.round(int(collecting[-1]))
    params = read(round_.params)
    return edit_bases(round_, params, card.channels).get(key)


def _drawn(studio: LabelStudio, question: Question, answered: Answered) -> object:
    """The result of the draft that holds the question. Asking itself makes the page save one: wait for that, and take
    an earlier form of it if it does not come.

    Others' drafts of the task hold other fields. What was saved before the question holds another text, or has answered
    a question already: so no clock of Label Studio's is held against ours.
    """
    began = time.monotonic()
    while True:
        own = [d for d in studio.drafts(question.task) if question.field in _fields(d.get("result"))]
        newest = max(own, key=lambda d: str(d.get("updated_at")), default=None)
        form = (newest["id"], newest["updated_at"]) if newest else None
        asks = newest is not None and _fields(newest["result"])[question.field] == question.text
        waited = time.monotonic() - began
        if (asks and form != answered.get(question.field)) or waited > PATIENCE:
            break
        time.sleep(CLOSELY if waited > DUE else LOOK)
    if newest is None or form is None:
        raise ValueError("draw first, then ask")
    if len(answered) >= REMEMBERED:
        answered.clear()
    answered[question.field] = form
    return newest["result"]


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
    server = app(root, services.model_user, services.model_password)
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

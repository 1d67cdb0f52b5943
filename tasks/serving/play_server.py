"""The page of the players: draw, see the answer after every stroke, flag what fools the model.

It can be open to everybody, so nothing a browser says counts: the server decodes the drawing, asks the target itself
and sends on what it found to fool it. A request holds a PNG, a class and, to flag, a player's name and code; nothing in
it is a file's name or an address, nothing is logged, and no cookie is set. Any number of processes may serve it: what
they share are files in .dadc, Label Studio and the target.

The page is Gradio's, its canvas our own. Gradio's Sketchpad would be quick enough (`benchmarks.play` measures both),
but it takes no keys, shows nothing over the drawing, leaves every stroke as a file on the server, and answers through a
queue that belongs to one process.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Request

from data.layout import Workspace
from data.records import Candidate
from data.shards import decode_png
from tasks.config.params import read
from tasks.engine import inference
from tasks.engine.explanations import activation_maps
from tasks.labelling import drawing as ink
from tasks.labelling.http import LabellingError
from tasks.labelling.label_config import hotkeys
from tasks.labelling.projects import INK
from tasks.quality.ranking import Fool, Ranking, rank
from tasks.serving.body_limit import App, BodyLimit, Receive, Send
from tasks.serving.bounded_pool import BoundedPool
from tasks.serving.link_preview import LinkPreview
from tasks.serving.players import MOST_NAMES, Player, Players, Refused, shown_name
from tasks.serving.security_headers import SecurityHeaders
from tasks.serving.submissions import Drawing, Flags
from tasks.serving.target import Target, collecting
from tasks.workspace.services import StackError, find_services

Look = Callable[[], Sequence[Candidate]]
MAX_BODY = 256 * 2**10  # bytes; a drawing has some 3,000
ANSWERS_WAITING = 64  # drawings that wait for the target's answer at most
ACCOUNTS_WAITING = 32  # joins and flags that wait for Label Studio at most; none of the drawings above waits for them
EVERY = 20.0  # seconds between two looks at what the others did, while somebody plays
AWAY = 60.0  # seconds after which nobody plays any longer
LONGEST = 3600.0  # seconds that a drawing is said to take at most
DESCRIPTION = "Draw something that every person reads at once and that the model gets wrong."
PLACES = 10  # of the table that everybody sees
_DRAWING = re.compile(r"[0-9a-z]{1,24}")
_PAGE = Path(__file__).parent / "page"


class Game:
    """What one process knows: the target, the players, and how the campaign stood when it last looked."""

    def __init__(self, root: Path, look: Look) -> None:
        """look: every candidate of the campaign by now, judged and with its verdict; may take seconds."""
        self.workspace, self._look = Workspace(root), look
        self.campaign = read((collecting(self.workspace) or self.workspace).params).campaign
        services = find_services(root)
        self.target = Target(self.workspace)
        self.players = Players(self.workspace, self.campaign, services)
        self.flags = Flags(services)
        self.tries = Tries(self.workspace.local / "play" / "tries")
        self.seen: Ranking | None = None
        self.fault = ""
        self._answers: dict[tuple[int, str], int] = {}
        self._wanted, self._lately = threading.Event(), 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def answer(self, body: bytes) -> tuple[ink.Alpha, torch.Tensor]:
        """A drawing as it was sent → its ink, and uint8 C×H×W. ValueError if it is none."""
        _, card = self.target.get()
        item = {
            "from_name": INK,
            "type": "bitmasklabels",
            "value": {"imageDataURL": "data:image/png;base64," + base64.b64encode(body).decode()},
        }
        alpha = ink.read([item], ink.canvas_size(card.size))
        pixels = torch.from_numpy(ink.reduce(alpha, card.size))
        return alpha, pixels.expand(card.channels, card.size, card.size).contiguous()

    def where(self, pixels_CHW: torch.Tensor, class_: int) -> list[list[int]]:
        """Where the target looks for a class: 0 to 255 for each pixel."""
        with self.target.alone(pixels_CHW) as (net, _):
            map_HW = activation_maps(net, inference.to_float(pixels_CHW[None]), torch.tensor([class_]))[0]
        rows: list[list[int]] = (map_HW * 255).round().to(torch.int).tolist()
        return rows

    def look_again(self) -> None:
        """Somebody is there; and what they did may be in Label Studio by now."""
        self._wanted.set()

    def keep_looking(self) -> None:
        """Somebody is there."""
        if time.monotonic() - self._lately > EVERY:
            self._wanted.set()

    def _watch(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self.seen, self.fault = self._stand(list(self._look())), ""
            except (StackError, LabellingError) as error:
                self.fault = f"Label Studio cannot be reached ({type(error).__name__}); flags must wait."
            except Exception as error:  # the next look may succeed; who runs the page must see why this one did not
                self.fault = f"How the campaign stands is not known now ({type(error).__name__})."
                logging.getLogger(__name__).exception("the campaign could not be looked at")
            self._lately = time.monotonic()
            time.sleep(0.5)  # at most twice a second, whatever is asked for

    def _stand(self, candidates: list[Candidate]) -> Ranking:
        """With what the target of today makes of every fool."""
        net, card = self.target.get()
        fools = [c for c in candidates if c.fooling]
        unknown = [c for c in fools if (card.round, c.key) not in self._answers]
        if unknown:
            pixels = torch.stack([decode_png(c.image, card.channels) for c in unknown])
            with self.target.alone(pixels[0]) as (net, _):
                answers_N, _ = inference.answer(net, pixels)
            for c, answer in zip(unknown, answers_N.tolist(), strict=True):
                self._answers[card.round, c.key] = answer
        now = {c.key: self._answers[card.round, c.key] for c in fools}
        round_ = collecting(self.workspace)
        return rank(candidates, now, round_.number if round_ else None)


class Tries:
    """How many drawings the model answered a player; a line a drawing, so that processes need not agree."""

    MOST = 2**18  # bytes of one player's file

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[str, str] = {}

    def add(self, player: Player, drawing: str) -> None:
        """Twice is once."""
        if self._last.get(player.email) == drawing:
            return
        if len(self._last) >= MOST_NAMES:
            self._last.clear()
        self._last[player.email] = drawing
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / player.name.lower()
        if not path.exists() or path.stat().st_size < self.MOST:
            with path.open("a") as file:
                file.write(drawing + "\n")

    def of(self, player: Player) -> int:
        path = self._folder / player.name.lower()
        return len(set(path.read_text().split())) if path.exists() else 0


def app(root: Path, look: Look) -> FastAPI:
    """The page and what it asks, for the campaign at `root`. look: as in `Game`."""
    torch.set_num_threads(1)
    game = Game(root, look)
    game.target.get()
    answers, accounts = BoundedPool(2, ANSWERS_WAITING), BoundedPool(4, ACCOUNTS_WAITING)
    server = FastAPI(title="dadc play", docs_url=None, redoc_url=None, openapi_url=None)
    title = f"Fool the model: {game.campaign}"
    server.add_middleware(LinkPreview, title=title, description=DESCRIPTION)
    server.add_middleware(Narrow)
    server.add_middleware(BodyLimit, limit=MAX_BODY)
    server.add_middleware(SecurityHeaders)

    @server.get("/play/health")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @server.get("/play/state")
    async def state(request: Request) -> dict[str, Any]:
        player = _player(game, request)
        game.keep_looking()
        if request.query_params.get("fresh"):
            game.look_again()
        return await answers.do(lambda: _state(game, player))

    @server.post("/play/answer")
    async def answer(request: Request) -> dict[str, Any]:
        body, asked, player = await request.body(), request.query_params, _player(game, request)
        drawing = asked.get("drawing", "")
        if player is not None and _DRAWING.fullmatch(drawing):
            game.tries.add(player, drawing)
        return await answers.do(lambda: _answer(game, body, where=asked.get("where") == "1"))

    @server.post("/play/join")
    async def join(request: Request) -> dict[str, str]:
        given = await _json(request)
        name, code = str(given.get("name", ""))[:64], str(given.get("code", ""))[:64]
        player, right = await accounts.do(lambda: game.players.join(name, code))
        return {"name": player.name, "code": right}

    @server.post("/play/flag")
    async def flag(request: Request) -> dict[str, Any]:
        player = _player(game, request)
        if player is None:
            raise HTTPException(401, "Say your name first.")
        body, asked = await request.body(), request.query_params
        meant, seconds = _number(asked.get("meant")), _number(asked.get("seconds"))
        sent = await accounts.do(lambda: _flag(game, player, body, int(meant), min(max(seconds, 0.0), LONGEST)))
        game.look_again()
        return sent

    _mount_page(server, title)
    return server


def _answer(game: Game, body: bytes, where: bool) -> dict[str, Any]:
    _, pixels = game.answer(body)
    given = game.target.answer(pixels)
    told: dict[str, Any] = {"answer": given.answer, "probabilities": [round(p, 4) for p in given.probabilities]}
    if where:
        told["where"] = game.where(pixels, given.answer)
    return told


def _flag(game: Game, player: Player, body: bytes, meant: int, seconds: float) -> dict[str, Any]:
    """Send a drawing on if it fools the target; what the target made of it."""
    round_ = collecting(game.workspace)
    if round_ is None:
        raise Refused("No round is open now. Come back when the model has been trained.")
    _, card = game.target.get()
    if not 0 <= meant < len(card.classes):
        raise ValueError(f"expected a class from 0 to {len(card.classes) - 1}, got {meant}")
    alpha, pixels = game.answer(body)
    given = game.target.answer(pixels)
    if given.answer == meant:
        raise Refused(f"The model says {given.class_} too: nothing to flag yet.")
    game.flags.send(round_, player, Drawing(alpha, pixels, card.classes[meant], seconds))
    return {"answer": given.answer, "text": f"Sent: you mean {card.classes[meant]}, the model says {given.class_}."}


def _state(game: Game, player: Player | None) -> dict[str, Any]:
    _, card = game.target.get()
    round_, seen = collecting(game.workspace), game.seen
    told: dict[str, Any] = {
        "round": round_.name if round_ else None,
        "model": f"{card.round:03d}",
        "classes": card.classes,
        "keys": hotkeys(card.classes),
        "canvas": ink.canvas_size(card.size),
        "fault": game.fault,
        "ready": seen is not None,
    }
    if seen is None:
        return told
    wanted = read(round_.params).collect.threshold if round_ else 0
    told |= {"verified": seen.verified, "wanted": max(0, wanted - seen.verified), "enough": wanted}
    told["gallery"] = [_fool(fool, card.classes) for fool in seen.gallery]
    told["places"] = [
        {"name": shown_name(r.annotator), "fools": r.fools, "verified": r.verified, "place": seen.of(r.annotator)[0]}
        for r in seen.ranks[:PLACES]
    ]
    if player is not None:
        place, own = seen.of(player.email)
        fools = seen.own(player.email)
        told["me"] = {
            "name": player.name,
            "tries": max(game.tries.of(player), own.sent),
            "fools": own.fools,
            "verified": own.verified,
            "place": place,
            "healed": sum(fool.healed for fool in fools),
            "own": [_fool(fool, card.classes) | {"state": fool.state} for fool in fools],
        }
    return told


def _fool(fool: Fool, classes: Sequence[str]) -> dict[str, Any]:
    candidate = fool.candidate
    by = shown_name(candidate.annotator) if candidate.annotator else f"attack {candidate.source}"
    return {
        "image": "data:image/png;base64," + base64.b64encode(candidate.image).decode(),
        "meant": classes[candidate.intended],
        "answer": classes[candidate.answer],
        "round": f"{candidate.round:03d}",
        "by": by,
    }


def _player(game: Game, request: Request) -> Player | None:
    """Who is named in the header; None if nobody is, or the code is wrong."""
    name, _, code = urllib.parse.unquote(request.headers.get("x-player", ""))[:64].partition(":")
    return game.players.known(name, code) if name else None


async def _json(request: Request) -> dict[str, Any]:
    try:
        given = await request.json()
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(422, "expected a JSON object")
    return given


def _number(text: str | None) -> float:
    if text is None or not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text):
        raise HTTPException(422, "expected a number")
    return float(text)


class Narrow:
    """Lets through what the page needs, which is little: Gradio's own uploads, files, queue and proxies are closed."""

    CLOSED = re.compile(
        r"/(gradio_api/)?(proxy=|file|upload|stream|queue|call|run|component_server|vibe|monitoring|heartbeat)"
    )

    def __init__(self, app: App) -> None:
        self._inner = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and self._closed(scope["method"], scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._inner(scope, receive, send)

    def _closed(self, method: str, path: str) -> bool:
        return not path.startswith("/play/") and (method not in ("GET", "HEAD") or bool(self.CLOSED.match(path)))


def _mount_page(server: FastAPI, title: str) -> None:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    style = (_PAGE / "play.css").read_text(encoding="utf-8")
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    with gr.Blocks(title=title, analytics_enabled=False) as blocks:
        gr.HTML(
            value=(_PAGE / "play.html").read_text(encoding="utf-8"),
            js_on_load=(_PAGE / "play.js").read_text(encoding="utf-8"),
            elem_id="play",
            apply_default_css=False,
        )
    blocks.queue(api_open=False)
    gr.mount_gradio_app(
        server,
        blocks,
        path="/",
        theme=theme,
        head=f"<style>{style}</style>",
        footer_links=[],
        ssr_mode=False,
    )

"""The page while no round is open."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from open_round import Play
from PIL import Image

from data.shards import write_candidates
from flows.play import watch
from tasks.serving.play_server import app
from tasks.serving.players import Players
from tasks.workspace.services import find_services


def drawing() -> bytes:
    """A white bar on an empty canvas."""
    canvas = Image.new("RGBA", (280, 280), (255, 255, 255, 0))
    canvas.paste((255, 255, 255, 255), (100, 60, 135, 200))
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def test_no_round_no_flags(tmp_path: Path, open_round: Callable[..., Play], monkeypatch: pytest.MonkeyPatch) -> None:
    play = open_round()
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef" * 2)
    play.round.lineage.write_text("{}")
    write_candidates(play.round.candidates, [])
    (play.round.workspace.root / "params.yaml").write_text(play.round.params.read_text())
    root = play.round.workspace.root
    with TestClient(app(root, watch(root))) as client:
        for _ in range(100):
            told = client.get("/play/state?fresh=1").json()
            if told["ready"]:
                break
            time.sleep(0.1)
        assert (told["ready"], told["round"], told["fault"]) == (True, None, "")
        code = Players(play.round.workspace, play.params.campaign, find_services(root)).code("ann")
        answer = client.post("/play/flag?meant=1&seconds=1", content=drawing(), headers={"X-Player": f"ann:{code}"})
        assert (answer.status_code, "No round is open now" in answer.text) == (409, True)

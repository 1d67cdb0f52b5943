"""What `dadc status` says, of a campaign that was promoted once, refused once, and has a round open."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import dadc
from open_round import Play, make_round, under_git
from rich.console import Console
from round_states import mark_closed, mark_opened

from data.layout import Round, Workspace
from flows.reports.progress import keep, open_round, open_round_lines
from flows.reports.status import gate_lines, status, table, verdicts
from tasks.promote import decide
from tasks.quality.progress import Progress
from tasks.workspace.rounds import opened_at, write_index

COUNTED = Progress(collected=7, fooling=5, verified_fooling=2, pending=3, malformed=1)
REASON = "PGD-10 fell by 3.1 points, and 2.0 are allowed"


def accuracy(value: float) -> dict[str, float]:
    return {"accuracy": value, "low": value - 0.042, "high": value + 0.041}


def close(round_: Round, promoted: bool, reasons: list[str]) -> None:
    metrics = {
        "promoted": promoted,
        "collected": 24,
        "mer": 0.5,
        "vmer": {"low": 0.25, "high": 0.375},
        "clean": accuracy(0.912),
        "robust": {"fgsm": accuracy(0.503), "pgd": accuracy(0.401)},
        "ood": {"mean": accuracy(0.708)},
        "gate": {"reasons": reasons},
    }
    round_.challenger.metrics.write_text(json.dumps(metrics))
    mark_closed(round_)


@pytest.fixture
def campaign(tmp_path: Path, checkout: Path) -> Workspace:
    """Round 000 promoted, 001 refused, 002 open with a threshold of 3 and a deadline of 26 hours."""
    play: Play = make_round(tmp_path / "workspace", checkout, collect={"threshold": 3, "deadline": 26.0, "edits": 2})
    workspace = play.round.workspace
    under_git(play)
    close(workspace.round(0), True, [])
    close(workspace.round(1), False, [REASON])
    second = workspace.round(2)
    second.folder.mkdir()
    shutil.copyfile(play.round.params, second.params)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    mark_opened(second)
    return workspace


def printed(workspace: Workspace, width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table(workspace, width))
    return [line for line in capture.get().splitlines() if line.strip()]


@pytest.mark.parametrize("width", [80, 130])
def test_the_table_fits_the_terminal_and_marks_the_champion(campaign: Workspace, width: int) -> None:
    lines = printed(campaign, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines), "no cell is cut"
    (champion,) = [line for line in lines[1:] if "★" in line]
    assert champion.split()[0] == "000", "round 001 was refused"
    for column in ("collected", "MER", "vMER", "clean", "FGSM", "PGD", "OOD"):
        assert column in lines[1]
    assert ("±4.2" in champion) == (width == 130)


def test_a_refusal_stands_with_its_reason(campaign: Workspace) -> None:
    assert verdicts(campaign) == [f"round 001 was refused: {REASON}"]
    decide(campaign.round(1), True, "the gate compares too few images")
    assert verdicts(campaign) == ["round 001 was promoted by hand: the gate compares too few images"]
    assert [row["result"] for row in status(campaign.root)["rounds"]] == ["promoted", "champion", None]


def test_the_last_gate_stands_with_every_comparison(campaign: Workspace) -> None:
    """A round with gate.json is decided by it, whatever metrics.json says."""
    robust = {"difference": 0.031, "low": 0.012, "high": 0.05, "n": 240, "verdict": "better", "more": None}
    clean = {"difference": -0.004, "low": -0.021, "high": 0.013, "n": 240, "verdict": "undecided", "more": 1200}
    gate = {
        "verdict": "undecided",
        "promoted": True,
        "reasons": ["of a test"],
        "data": "no worse",
        "target": {"clean": clean, "robust": robust},
        "best": {"clean": {"round": 0, **clean}},
        "reference": {"fools": robust},
        "sound": {"fault": "the network answers one class to all of 240 images"},
    }
    campaign.round(1).gate.write_text(json.dumps(gate))
    lines = gate_lines(campaign)
    assert lines[0] == "gate of round 001: undecided, promoted; what this round's data did: no worse"
    assert lines[1:5] == [
        "  against the target: clean -0.4 points [-2.1, +1.3], n 240: undecided, about 1,200 more would decide",
        "  against the target: robust +3.1 points [+1.2, +5.0], n 240: better",
        "  against round 000: clean -0.4 points [-2.1, +1.3], n 240: undecided, about 1,200 more would decide",
        "  against the reference: fools +3.1 points [+1.2, +5.0], n 240: better",
    ]
    assert lines[5].startswith(
        "warning: round 001: the network answers one class to all of 240 images; fooling it says"
    )
    assert [row["result"] for row in status(campaign.root)["rounds"]] == ["promoted", "champion", None]


def test_the_open_round_stands_in_numbers(campaign: Workspace) -> None:
    round_ = campaign.round(2)
    now = datetime.fromtimestamp(opened_at(round_), UTC) + timedelta(hours=1, minutes=30)
    assert "`dadc collect`" in open_round_lines(open_round(round_), now)[1]
    keep(round_, COUNTED, votes_missing=4)
    lines = {line.split()[0]: line for line in open_round_lines(open_round(round_), now)[1:]}
    assert "7 of 4 drawings and 2 edits" in lines["collected"]
    assert "5" in lines["fooling"]
    assert "2 of these; the round closes at 3" in lines["verified"]
    assert "4 more to come" in lines["votes"]
    assert "in 1 d" in lines["deadline"]
    assert all(len(line) <= 80 for line in lines.values())


def test_who_is_set_aside_stands_there_with_the_reason(campaign: Workspace) -> None:
    round_ = campaign.round(2)
    keep(round_, COUNTED, votes_missing=4, aside={"eve@x": "9 of 10 probes answered wrongly"})
    now = datetime.fromtimestamp(opened_at(round_), UTC)
    assert "  set aside    eve@x: 9 of 10 probes answered wrongly" in open_round_lines(open_round(round_), now)


def test_what_was_counted_of_another_opening_is_not_shown(campaign: Workspace) -> None:
    round_ = campaign.round(2)
    keep(round_, COUNTED, votes_missing=4)
    round_.opened.write_text('{"at": "2026-02-01T00:00:00+00:00"}\n')
    assert open_round(round_)["counted"] is None


def test_the_command_prints_the_same_as_json(initialised: Path, campaign: Workspace) -> None:
    """In a real workspace, since the command runs the code that lies there."""
    for path in campaign.rounds.iterdir():
        if path.is_dir():
            shutil.copytree(path, initialised / "data" / "rounds" / path.name)
    shutil.copyfile(campaign.index, initialised / "data" / "rounds" / "index.json")
    rounds = Workspace(initialised)
    for number in (0, 1):
        mark_closed(rounds.round(number))
    mark_opened(rounds.round(2))
    keep(rounds.round(2), COUNTED, votes_missing=4)
    answer: dict[str, Any] = json.loads(dadc(initialised, "status", "--json").stdout)
    assert (answer["campaign"], answer["champion"]) == ("digits", "000")
    assert [row["result"] for row in answer["rounds"]] == ["champion", "refused", None]
    assert answer["rounds"][1]["reasons"] == [REASON]
    assert answer["rounds"][0]["robust"]["pgd"]["accuracy"] == 0.401
    assert answer["open"]["counted"]["votes_missing"] == 4
    assert answer["open"]["threshold"] == 3
    printed_lines = dadc(initialised, "status").stdout
    assert f"round 001 was refused: {REASON}" in printed_lines
    assert "4 more to come" in printed_lines
    assert "round 002 is open" in printed_lines

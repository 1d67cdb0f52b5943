"""The leaderboard as tables and as a file."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from open_round import make_round, train, under_git
from rich.console import Console

from data.sets import digits
from data.shards import write_candidates
from flows.reports.leaderboard import Board, as_csv, board, table
from tasks import attack
from tasks.engine import inference
from tasks.quality.leaderboard import Annotator, Attack, Validator

EVE = Annotator("=cmd|'/c calc'!a1@x", 4, 1, 2, 1, 1, 0.75, 40.0, 40.0, "")
BOB = Annotator("[red]bob@x", 0, 1, 0, 0, 0, None, 0.0, None, "6 of 7 settled candidates show another class")
VIC = Validator("vic@x", 9, 8, 2, 30.0, 15.0, 1 / 3, None, 4, 0.75, "")
PGD = Attack("pgd", "001", 6, 5, 3, 0.8333, 0.6)


def test_the_file_holds_a_line_a_person_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(Board([EVE, BOB], [VIC], [PGD])))))
    assert [row["role"] for row in rows] == ["annotator", "annotator", "validator", "attack"]
    assert rows[0]["account"] == "'" + EVE.account
    assert (rows[0]["verified_fools"], rows[0]["seconds_per_verified_fool"]) == ("1", "40.0000")
    assert (rows[1]["mer"], rows[1]["votes"]) == ("", "")
    assert math.isclose(float(rows[2]["agreement"]), 1 / 3, abs_tol=1e-4)
    assert (rows[2]["seconds_per_verified_fool"], rows[2]["skill"]) == ("15.0000", "")
    assert (rows[3]["account"], rows[3]["round"], rows[3]["attack_success_rate"]) == ("pgd", "001", "0.8333")
    assert as_csv(Board([], [], [])) == "role,account\n"


def test_the_tables_show_every_account_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w") as file:
        console = Console(file=file, width=300)
        console.print(table("annotators", [EVE, BOB]))
        console.print(table("validators", [VIC]))
        console.print(table("validators", []))
        console.print(table("attacks", [PGD]))
    shown = (tmp_path / "shown").read_text()
    for text in (
        EVE.account,
        BOB.account,
        BOB.set_aside,
        "75.0",
        "33.3",
        "MER",
        "none yet",
        "83.3",
        "attack success rate",
    ):
        assert text in shown


def test_attacks_of_an_open_round_are_told_apart(tmp_path: Path, checkout: Path) -> None:
    play = make_round(tmp_path, checkout)
    net = train(play, digits.load("train", root=tmp_path, size=None, channels=None, seed=0))
    under_git(play)
    made = attack.candidates(net, play.pool.take(range(20)), "pgd", play.round, play.params)
    write_candidates(play.round.attack, made)
    answers_N, _ = inference.answer(net, play.pool.pixels_NCHW[:20])
    right = {made[i].seed_image for i in (answers_N == play.pool.labels_N[:20]).nonzero().flatten().tolist()}
    flipped = sum(c.fooling for c in made if c.seed_image in right)
    found = board(tmp_path)
    (row,) = found.attacks
    assert flipped < sum(c.fooling for c in made), "some seed images were wrong before the attack: no fools of it"
    assert (row.account, row.round, row.tries, row.fools) == ("pgd", "001", 20, flipped)
    assert row.attack_success_rate == pytest.approx(flipped / len(right))
    assert row.verified_rate is None, "nobody has voted yet"
    assert (found.annotators, found.validators) == ([], [])

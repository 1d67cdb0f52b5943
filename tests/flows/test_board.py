"""The leaderboard as tables and as a file."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from rich.console import Console

from flows.board import as_csv, table
from tasks.leaderboard import Annotator, Validator

EVE = Annotator("=cmd|'/c calc'!a1@x", 4, 1, 2, 1, 1, 0.75, 40.0, 40.0, "")
BOB = Annotator("[red]bob@x", 0, 1, 0, 0, 0, None, 0.0, None, "6 of 7 settled candidates show another class")
VIC = Validator("vic@x", 9, 8, 1 / 3, 4, 0.75, "")


def test_the_file_holds_a_line_a_person_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv([EVE, BOB], [VIC]))))
    assert [row["role"] for row in rows] == ["annotator", "annotator", "validator"]
    assert rows[0]["account"] == "'" + EVE.account
    assert (rows[0]["verified_fools"], rows[0]["seconds_per_verified_fool"]) == ("1", "40.0000")
    assert (rows[1]["mer"], rows[1]["votes"]) == ("", "")
    assert math.isclose(float(rows[2]["agreement"]), 1 / 3, abs_tol=1e-4)
    assert as_csv([], []) == "role,account\n"


def test_the_tables_show_every_account_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "shown").open("w") as file:
        console = Console(file=file, width=300)
        console.print(table("annotators", [EVE, BOB]))
        console.print(table("validators", [VIC]))
        console.print(table("validators", []))
    shown = (tmp_path / "shown").read_text()
    for text in (EVE.account, BOB.account, BOB.set_aside, "75.0", "33.3", "MER", "none yet"):
        assert text in shown

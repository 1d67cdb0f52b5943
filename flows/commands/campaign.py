"""The commands about a whole campaign: where it stands, who did what, and rounds that run by themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.shell import CAMPAIGN, command, prefect, resolve_cli_path, root

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


@command(CAMPAIGN, "dadc status", "dadc status --json")
def status(as_json: AsJson = False) -> None:
    """Print the rounds, a row each, how the open round stands, and the next command."""
    at = root()
    from flows.reports.status import show_all
    from flows.reports.status import status as read_status

    if as_json:
        print(json.dumps(read_status(at), indent=2, ensure_ascii=False))
    else:
        show_all(at)


@command(CAMPAIGN, "dadc compare", "dadc compare 1 4 --html charts.html")
def compare(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="ROUND", help="one or two closed rounds [the last one and its target]")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="write the charts of `dvc plots` there, for offline")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print two closed rounds side by side: their figures, the changes, and the parameters in which they differ."""
    at = root()
    from flows.reports.charts import write_page
    from flows.reports.compare import show

    show(at, numbers or [], as_json)
    if page is not None:
        charts = write_page(at, resolve_cli_path(page))
        print(f"wrote {charts} charts to {page}", file=sys.stderr)


@command(CAMPAIGN, "dadc leaderboard", "dadc leaderboard --round 3 --csv pay.csv")
def leaderboard(
    number: Annotated[int | None, typer.Option("--round", metavar="NNN", help="one round [all that collect]")] = None,
    file: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="write the rows there too")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what each annotator and validator did, and whose votes do not count."""
    at = root()
    from flows.reports.leaderboard import show

    show(at, number, resolve_cli_path(file) if file else None, as_json)


@command(CAMPAIGN, "dadc run --rounds 3 --simulate")
def run(
    rounds: Annotated[
        int, typer.Option(metavar="N", min=0, help="go on until this round is closed; 0 is the first target")
    ],
    simulate: Annotated[
        bool, typer.Option("--simulate", help="simulated people draw and vote; without, it waits for real ones")
    ] = False,
) -> None:
    """Run rounds, from wherever the campaign stands, until round N is closed."""
    at = root()
    prefect(at)
    from flows.context import start
    from flows.reports.status import show
    from flows.run import campaign

    start(campaign, at, rounds, simulate)
    show(at)


@command(CAMPAIGN, "dadc schedule", 'dadc schedule --cron "*/10 8-18 * * mon-fri" --timezone Europe/Berlin')
def schedule(
    every: Annotated[
        int | None, typer.Option(metavar="SECONDS", min=1, help="between two looks [collect.every]")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help='instead of --every, such as "*/10 8-18 * * mon-fri"')
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="of --cron, such as Europe/Berlin [this machine's]")
    ] = None,
) -> None:
    """Run rounds by themselves: collect, close at the threshold or deadline, open the next. Ctrl-C stops it.

    params.yaml says when: collect.threshold, collect.deadline, and in `schedule` when the campaign ends.
    """
    if every is not None and cron is not None:
        raise ValueError("give --every or --cron, not both")
    if timezone is not None and cron is None:
        raise ValueError("--timezone says how --cron is meant, and there is no --cron; give both or neither")
    at = root()
    prefect(at, needed=True)
    from flows.context import load
    from flows.schedule.deployments import check_cron, time_zone
    from flows.schedule.deployments import serve as serve_deployments

    zone = time_zone(timezone)
    if cron is not None:
        check_cron(cron, zone)
    campaign = load(at)
    campaign.check_studio()
    campaign.check_mlflow()
    if serve_deployments(at, every or campaign.params.collect.every, cron, zone) is None:
        print("stopped; `dadc schedule` goes on from here")

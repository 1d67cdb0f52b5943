"""What a campaign needs next, told from its files, its tags and what was collected."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from open_round import make_round, under_git
from round_states import mark_closed

from data.files import write_whole
from flows.campaign import Campaign
from flows.schedule.alerts import alerts
from flows.schedule.deployments import check_cron, deployments, serve, time_zone
from flows.schedule.due import HOUR, due
from flows.schedule.events import REPEAT_EVENT_AFTER, recently_announced
from tasks.config.params import Params
from tasks.quality.progress import Progress
from tasks.workspace.lock import Busy
from tasks.workspace.rounds import opened_at

NOTHING = Progress(collected=0, fooling=0, verified_fooling=0, pending=0, malformed=0)


@pytest.fixture
def campaign(tmp_path: Path, checkout: Path) -> Campaign:
    """Round 000 closed, round 001 open with a threshold of 3 and a deadline of 4 hours."""
    play = make_round(tmp_path / "workspace", checkout, collect={"threshold": 3, "deadline": 4.0})
    under_git(play)
    workspace = play.round.workspace
    close(workspace.round(0), promoted=True, vmer=None)
    return Campaign(workspace, play.params, play.spec)


def close(round_: Any, promoted: bool, vmer: float | None) -> None:
    round_.challenger.metrics.write_text(json.dumps({"promoted": promoted, "vmer": {"low": vmer, "high": vmer}}))
    mark_closed(round_)


def ruled(campaign: Campaign, **rules: object) -> Campaign:
    params: Params = campaign.params.model_copy(
        update={"schedule": campaign.params.schedule.model_copy(update=dict(rules))}
    )
    return replace(campaign, params=params)


def found(campaign: Campaign, now: float, tally: Progress | None = None) -> tuple[str, str]:
    one = due(campaign, now, tally)
    return one.what, one.round.name


def test_an_open_round_waits_for_its_threshold_or_its_deadline(campaign: Campaign) -> None:
    opened = opened_at(campaign.workspace.round(1))
    early = opened + HOUR
    assert found(campaign, early) == ("collect", "001")
    assert found(campaign, early, replace(NOTHING, verified_fooling=2)) == ("collect", "001")
    assert found(campaign, early, replace(NOTHING, verified_fooling=3)) == ("close", "001")
    assert found(campaign, opened + 4 * HOUR - 1, NOTHING) == ("collect", "001")
    assert found(campaign, opened + 4 * HOUR, NOTHING) == ("close", "001")


def test_what_was_cut_short_goes_on(campaign: Campaign) -> None:
    round_ = campaign.workspace.round(1)
    round_.lineage.write_text("{}")
    assert found(campaign, 0.0) == ("close", "001")
    round_.lineage.unlink()
    mark_closed(round_)
    campaign.workspace.round(2).folder.mkdir()
    campaign.workspace.round(2).params.write_text("{}")
    assert found(campaign, 0.0) == ("open", "002")


def test_the_campaign_ends_by_number_or_by_vmer(campaign: Campaign) -> None:
    close(campaign.workspace.round(1), promoted=True, vmer=0.2)
    assert found(campaign, 0.0) == ("open", "002")
    assert found(ruled(campaign, rounds=2), 0.0) == ("open", "002")
    assert found(ruled(campaign, rounds=1), 0.0) == ("stop", "001")
    assert found(ruled(campaign, vmer=0.2), 0.0) == ("open", "002")
    assert found(ruled(campaign, vmer=0.21), 0.0) == ("stop", "001")


def test_an_aborted_round_is_followed_by_the_next(campaign: Campaign) -> None:
    campaign.workspace.round(1).aborted.write_text("{}")
    assert found(ruled(campaign, rounds=1), 0.0) == ("open", "002")


def test_a_person_is_called_for_what_only_a_person_can_see_to(campaign: Campaign) -> None:
    opened = opened_at(campaign.workspace.round(1))

    def told(now: float, tally: Progress | None, **rules: object) -> list[str]:
        return [call.name for call in alerts(ruled(campaign, **rules), now, tally)]

    assert told(opened + 2 * HOUR - 1, NOTHING) == []
    assert told(opened + 2 * HOUR, NOTHING) == ["idle"]
    assert told(opened + 2 * HOUR, replace(NOTHING, collected=1)) == []
    quarrel = replace(NOTHING, collected=20, alpha=0.3)
    assert told(opened, quarrel) == []
    assert told(opened, quarrel, alpha=0.3) == []
    assert told(opened, quarrel, alpha=0.4) == ["disagreement"]
    stuck = replace(NOTHING, collected=3, pending=2, voters=1, aside=1)
    assert told(opened, stuck) == ["short"]  # two must agree
    for helped in ({"voters": 2}, {"pending": 0}, {"aside": 0}):
        assert told(opened, replace(stuck, **helped)) == []
    close(campaign.workspace.round(1), promoted=False, vmer=0.5)
    assert told(opened, None) == ["refused"]
    campaign.workspace.round(1).decision.write_text('{"promoted": true, "why": "seen", "at": ""}')
    assert told(opened, None) == []


def test_a_cron_is_meant_in_this_machine_s_time_unless_said(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert time_zone(None) == "America/New_York"
    assert time_zone("Europe/Berlin") == "Europe/Berlin"
    with pytest.raises(ValueError, match="--timezone: expected a zone such as Europe/Berlin, got 'Mars/Olympus'"):
        time_zone("Mars/Olympus")
    write_whole(campaign.workspace.params, campaign.workspace.round(1).params.read_text())
    watch = deployments(campaign.workspace.root, 60, "*/10 8-18 * * mon-fri", "Europe/Berlin")[0]
    assert watch.schedules is not None
    (made,) = watch.schedules
    assert (made.schedule.cron, made.schedule.timezone) == ("*/10 8-18 * * mon-fri", "Europe/Berlin")


@pytest.mark.parametrize("expression", ["foo", "* * *", "61 * * * *", ""])
def test_a_cron_that_prefect_refuses_is_refused_at_once(expression: str) -> None:
    check_cron("*/10 8-18 * * mon-fri", "Europe/Berlin")
    with pytest.raises(ValueError, match="--cron: expected five fields"):
        check_cron(expression, "Europe/Berlin")


def test_one_schedule_a_campaign(campaign: Campaign) -> None:
    write_whole(campaign.workspace.params, campaign.workspace.round(1).params.read_text())
    path = campaign.workspace.local / "locks" / "schedule.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path), pytest.raises(Busy, match="another `dadc schedule` runs this campaign"):
        serve(campaign.workspace.root, 60)


def test_what_was_said_a_moment_ago_is_not_said_again(campaign: Campaign) -> None:
    wanted = due(campaign, 0.0, replace(NOTHING, verified_fooling=3))
    note = campaign.workspace.local / "said"
    assert not recently_announced(campaign, wanted)
    assert recently_announced(campaign, wanted)
    os.utime(note, (time.time() - REPEAT_EVENT_AFTER, time.time() - REPEAT_EVENT_AFTER))
    assert not recently_announced(campaign, wanted)
    os.utime(note, (time.time() + 3600, time.time() + 3600))
    assert not recently_announced(campaign, wanted), "the clock was set back: nobody knows when it was said"
    assert recently_announced(campaign, wanted)

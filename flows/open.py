"""Open a round: freeze its target and parameters, attack the target, publish what people are to do."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_whole
from data.layout import Round
from data.shards import read_candidates
from flows.context import Campaign, campaign_flow, load, say, step
from flows.precision import settled
from tasks.config.kinds import check_kinds
from tasks.config.params import read
from tasks.prepare import check_same
from tasks.promote import champion, unsound
from tasks.record.pool import check_pool
from tasks.workspace.checkout import pool_size
from tasks.workspace.dvc import check_remote, dvc
from tasks.workspace.git import WorkspaceError, check_branch, check_committed, commit
from tasks.workspace.rounds import State, check_elsewhere, state, write_index


def check_open(campaign: Campaign) -> None:
    """The errors of what opening lacks."""
    round_ = round_to_open(campaign)
    if round_.number > 0:
        campaign.check_studio()
        if state(round_) is not State.OPEN:
            campaign.check_model()


@campaign_flow("open", requires=check_open)
def open_round(root: Path) -> str:
    """Open the next round, or go on opening the one that was begun; its name."""
    campaign = load(root)
    round_ = campaign.current or campaign.next
    if state(round_) is State.OPEN:
        say(f"round {round_.name} is open")
        return round_.name
    freeze_params(campaign, round_)
    if round_.number > 0:
        attack(round_)
        publish(campaign, round_)
    record(campaign, round_)
    say(f"round {round_.name} is open")
    return round_.name


def round_to_open(campaign: Campaign) -> Round:
    """The round that opening is about; WorkspaceError where the workspace is not fit for it."""
    round_ = campaign.current or campaign.next
    if state(round_) is State.OPEN:
        return round_
    if state(round_) is State.CLOSING:
        raise WorkspaceError(f"round {round_.name} is being closed; `dadc close` goes on with it")
    check_branch(campaign.workspace)
    check_elsewhere(round_)
    check_committed(campaign.workspace)
    check_remote(campaign.workspace, say)
    check_same(campaign.workspace, campaign.params)
    check_kinds(campaign.params)
    frozen = round_.params.exists() and not to_freeze_anew(campaign, round_)
    check_pool(read(round_.params) if frozen else campaign.params, pool_size(campaign.workspace))
    check_devices(campaign, round_, frozen)
    if round_.number > 0 and not frozen:
        check_target(campaign, round_)
    return round_


def to_freeze_anew(campaign: Campaign, round_: Round) -> bool:
    """Whether params.yaml has changed since an `open` froze it that did not come to its end. Once the round has a
    project in Label Studio, people may have seen tasks made by the frozen one, and it stays."""
    if not round_.params.exists() or round_.params.read_bytes() == campaign.workspace.params.read_bytes():
        return False
    from tasks.labelling.projects import KINDS, title

    titles = [title(campaign.params.campaign, round_, kind) for kind in KINDS]
    return round_.number == 0 or not any(campaign.studio.find(name) for name in titles)


def check_devices(campaign: Campaign, round_: Round, frozen: bool = True) -> None:
    """ValueError for devices that are not here. frozen: those of the round's own params.yaml."""
    params = read(round_.params) if frozen else campaign.params
    if params.accelerator != "cpu":  # else torch, which takes seconds to import, is not asked
        from tasks.engine import devices

        devices.check_devices(params, frozen)


def check_target(campaign: Campaign, round_: Round) -> None:
    """WorkspaceError where there is no champion to attack, or its weights are not here."""
    target = target_of(campaign, round_)
    if not campaign.closed:
        raise WorkspaceError(
            "no target model: round 000 was given up; `dadc abort` removes it, so that it can be opened again"
        )
    if target is None:
        raise WorkspaceError(
            "no target model: every closed round's challenger was refused; "
            "`dadc decide NNN --promote --why …` makes one champion"
        )
    if not target.challenger.model.exists():
        path = target.challenger.model.relative_to(campaign.workspace.root)
        raise WorkspaceError(f"the target model {path} is missing; `dvc pull` brings it")


def target_of(campaign: Campaign, round_: Round) -> Round | None:
    """The champion among the rounds closed before this one."""
    return champion([r for r in campaign.closed if r.number < round_.number])


@step("freeze params")
def freeze_params(campaign: Campaign, round_: Round) -> None:
    """The round's folder, with params.yaml as it is now and the target that it is about."""
    anew = to_freeze_anew(campaign, round_)
    if anew:
        say(f"params.yaml has changed since round {round_.name} began to open; it is frozen as it is now")
    elif round_.params.exists() and round_.params.read_bytes() != campaign.workspace.params.read_bytes():
        say(f"round {round_.name} keeps the params.yaml by which its tasks were published; `dadc abort` gives it up")
    if anew or not round_.params.exists():
        round_.folder.mkdir(parents=True, exist_ok=True)
        temporary = round_.params.with_suffix(".tmp")
        shutil.copyfile(campaign.workspace.params, temporary)
        temporary.replace(round_.params)
    target = target_of(campaign, round_)
    if target is not None:
        if warning := unsound(target):
            say(warning)
        write_index(round_, "collected", {"target": str(target.challenger.model.relative_to(campaign.workspace.root))})


@step("attack")
def attack(round_: Round) -> None:
    """Machine candidates against the target, by the attack stage; pushed, for who collects or closes in a clone."""
    stage = f"attack@{round_.name}"
    dvc(round_.workspace, "repro", "-s", stage, say=say)
    dvc(round_.workspace, "push", stage, quiet=True, say=say)


@step("publish")
def publish(campaign: Campaign, round_: Round) -> None:
    """Drawing and editing tasks for annotators, the machine candidates for validators."""
    from tasks.publish import attach_model, publish_drawing, publish_editing, publish_validation
    from tasks.record.record import Record

    params = read(round_.params)
    studio = campaign.studio
    drawings = publish_drawing(studio, round_, params, campaign.spec)
    edits = publish_editing(studio, round_, params, campaign.spec)
    votes = publish_validation(studio, Record.read(round_), read_candidates(round_.attack))
    attach_model(studio, round_, params, campaign.services)
    say(f"published {drawings} drawing, {edits} editing and {votes} validation tasks")


@step("record")
def record(campaign: Campaign, round_: Round) -> None:
    """Write opened.json, with what `precision: auto` comes to, and commit: what that commit holds is open."""
    if not round_.opened.exists():
        precision = settled(read(round_.params), campaign.spec)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_whole(round_.opened, json.dumps({"at": at, **precision}, indent=2) + "\n")
    root = round_.workspace.root
    paths = [round_.params, round_.opened, round_.workspace.index, root / "dvc.lock"]
    commit(round_.workspace, f"Open round {round_.name}", *paths)

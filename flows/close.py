"""Close a round: freeze what was collected, train, fine-tune, evaluate, promote or not, track."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from data.files import write_whole
from data.layout import REFERENCE, Round, Workspace, pointer
from data.records import Candidate
from flows.collect import pull, validate
from flows.context import Campaign, campaign_flow, load, say, step
from flows.open import check_devices
from tasks import freeze as freezing
from tasks.config.params import read
from tasks.evaluation import plots
from tasks.promote import champion, outcome, promoted
from tasks.quality.progress import Progress
from tasks.workspace.checkout import gate_split
from tasks.workspace.dvc import check_remote, dvc
from tasks.workspace.git import WorkspaceError, check_branch, check_committed, commit, git, round_tags
from tasks.workspace.rounds import State, check_tag, closed, closing_commit, state, target, write_index


def check_close(campaign: Campaign) -> None:
    """The errors of what closing lacks."""
    round_ = round_to_close(campaign)
    if round_.number > 0 and state(round_) is State.OPEN:
        campaign.check_studio()
    if state(round_) is not State.CLOSED:
        campaign.check_mlflow()


@campaign_flow("close", requires=check_close)
def close_round(root: Path) -> str:
    """Close the open round, or go on closing the one that was begun; its name."""
    campaign = load(root)
    round_ = campaign.current or campaign.closed[-1]
    if state(round_) is State.CLOSED:
        tag(round_)
        say(f"round {round_.name} is closed")
        return round_.name
    if state(round_) is State.OPEN:
        candidates = validate(pull(campaign, round_)) if round_.number > 0 else []
        freeze(round_, candidates)
    keep(round_)
    train(round_)
    track(campaign, round_)
    record(round_)  # last: a closed round is a tracked one, whatever is killed in between
    best = champion(campaign.closed)
    say(f"round {round_.name} is closed; the champion is round {best.name if best else 'none'}")
    return round_.name


def round_to_close(campaign: Campaign) -> Round:
    """The round that closing is about; with none open, the last closed one, which closing again leaves as it is."""
    round_ = campaign.current
    if round_ is None:
        done = campaign.closed
        if not done:
            raise WorkspaceError("no round is open; `dadc open` opens one")
        return done[-1]
    if state(round_) is State.OPENING:
        raise WorkspaceError(f"round {round_.name} is half opened; `dadc open` goes on with it")
    check_branch(campaign.workspace)
    check_tag(round_)
    check_committed(campaign.workspace)
    check_remote(campaign.workspace, say)
    if state(round_) is State.OPEN:  # later what is left may need none of them
        check_devices(campaign, round_)
    return round_


@step("freeze")
def freeze(round_: Round, candidates: list[Candidate]) -> None:
    """Candidates → the shard; from here on late annotations are late."""
    before = [r for r in closed(round_.workspace) if promoted(r)]
    freezing.freeze(round_, candidates, read(round_.params), target(round_), before)
    if round_.number > 0:
        say(f"froze round {round_.name}: {Progress.of(candidates)}")


@step("keep")
def keep(round_: Round) -> None:
    """The shard, the raw record and weights that the user gave → DVC."""
    there = [path for path in (round_.candidates, round_.annotations, round_.weights) if path.exists()]
    new = [path for path in there if not pointer(path).exists()]
    if new:
        # Not linked anew: killed in between, DVC would leave the raw record in its cache alone.
        dvc(round_.workspace, "add", "--no-relink", *new, say=say)


@step("train, rift, evaluate, gate")
def train(round_: Round) -> None:
    """The round's deterministic stages, by DVC."""
    dvc(round_.workspace, "repro", "-s", *index_stages(round_), say=say)


def index_stages(round_: Round) -> list[str]:
    """Put the round into the index over which DVC repeats its stages; the names of its own, in order."""
    workspace, promote = round_.workspace, read(round_.params).promote
    attacked = target(round_)
    first_input = round_.weights if round_.weights.exists() else workspace.splits
    start = _path(attacked.challenger.model if attacked else first_input, workspace)
    write_index(round_, "rounds", {"start": start})
    stages = ["train", "rift", "evaluate"]
    if promote.margins is not None:
        against = start
        if attacked and promote.reference:
            write_index(round_, "references", {"start": start})
            against = _path(round_.arm(REFERENCE).model, workspace)
            stages += ["train_reference", "rift_reference"]
        images = _path(workspace.split(gate_split(workspace)), workspace)
        write_index(round_, "gated", {"images": images, "against": against})
        stages.append("gate")
    return [f"{stage}@{round_.name}" for stage in stages]


def _path(path: Path, workspace: Workspace) -> str:
    return str(path.relative_to(workspace.root))


@step("record")
def record(round_: Round) -> None:
    """Push the round's data, write closed.json, commit, tag: what that commit holds is closed."""
    workspace = round_.workspace
    dvc(workspace, "push", quiet=True, say=say)
    tables = plots.write([*[r for r in closed(workspace) if r.number < round_.number], round_])
    if not round_.closed.exists():
        at = datetime.now(UTC).isoformat(timespec="seconds")
        write_whole(round_.closed, json.dumps({"at": at}, indent=2) + "\n")
    made = [p for p in round_.folder.rglob("*") if p.suffix in (".json", ".dvc", ".yaml")]
    commit(
        workspace, f"Close round {round_.name}", *sorted(made), *tables, workspace.index, workspace.root / "dvc.lock"
    )
    tag(round_)


def tag(round_: Round) -> None:
    """Put the round's tag, a name for people, on the commit that closed it."""
    if round_.tag not in round_tags(round_.workspace):
        git(round_.workspace, "tag", "--no-sign", round_.tag, closing_commit(round_))


@step("track")
def track(campaign: Campaign, round_: Round) -> None:
    """The round → MLflow."""
    from tasks import track as tracking

    best = champion([*[r for r in campaign.closed if r != round_], round_])
    tracking.track(round_, campaign.services, best, outcome(round_))

"""Train an open round in another way than it was opened with: what people made for it and its target stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from data.files import write_whole
from data.layout import Round, Workspace
from flows.campaign import say
from flows.precision import SETTLED_BY, settled
from tasks.config.kinds import check_kinds
from tasks.config.params import Params, parse, read
from tasks.track import flat_params
from tasks.workspace.checkout import image_spec
from tasks.workspace.git import WorkspaceError, check_branch, check_committed, commit, git
from tasks.workspace.lock import lock
from tasks.workspace.reproduce import environment
from tasks.workspace.rounds import State, current, state

# Sections and keys of params.yaml that nothing before the training depends on.
AMENDABLE = ("accelerator", "devices", "train", "rift", "evaluate.precision")
NAMING_KINDS = ("train.loss", "train.augment", "rift.attack", "rift.augment")  # files of attacks, augments, losses


def amend(root: Path) -> None:
    """Take params.yaml as the open round's own and commit it, where it differs in how to train alone.

    WorkspaceError where no round is open, or params.yaml differs in what was settled when the round was opened.
    """
    workspace = Workspace(root)
    with lock(workspace):
        check_branch(workspace)
        round_ = current(workspace)
        if round_ is None or state(round_) is State.OPENING:
            raise WorkspaceError("no round is open, so none can be amended; `dadc open` takes params.yaml as it is")
        check_committed(workspace)
        wanted = read(workspace.params)
        changed = differing(as_committed(round_), wanted)
        if fixed := [key for key in changed if not {key, key.split(".")[0]} & set(AMENDABLE)]:
            raise WorkspaceError(
                f"only {', '.join(AMENDABLE)} of an open round can be amended, and params.yaml differs from round "
                f"{round_.name}'s own in {', '.join(fixed)} too; put those back until the round is closed"
            )
        if not changed:
            say(f"round {round_.name} already has what params.yaml says")
            return
        if any(key.startswith(NAMING_KINDS) for key in changed):  # else torch is not needed, which takes seconds
            check_kinds(wanted)
        if wanted.accelerator != "cpu":  # else torch is not asked
            from tasks.engine import devices

            devices.check_devices(wanted, frozen=False)
        if changed.keys() & set(SETTLED_BY):  # trained elsewhere now, or otherwise
            precision = settled(wanted, image_spec(workspace))
            if round_.opened.exists():
                content = json.loads(round_.opened.read_text(encoding="utf-8"))
                content.pop("precision", None)
                write_whole(round_.opened, json.dumps(content | precision, indent=2) + "\n")
            if round_.lineage.exists():
                lineage = json.loads(round_.lineage.read_text(encoding="utf-8"))
                lineage["environment"] = {**environment(wanted), **precision}
                write_whole(round_.lineage, json.dumps(lineage, indent=2) + "\n")
        write_whole(round_.params, workspace.params.read_bytes())
        what = [f"{key} {old} → {new}" for key, (old, new) in changed.items()]
        paths = [path for path in (round_.params, round_.opened) if path.exists()]
        commit(workspace, "\n".join([f"Amend round {round_.name}", "", *what]), *paths)
        say(f"round {round_.name} now has {', '.join(what)}; `dadc close` trains it so")


def as_committed(round_: Round) -> Params:
    """The round's own parameters by the last commit: an amendment that was cut short has written the file alone."""
    name = round_.params.relative_to(round_.workspace.root)
    return parse(git(round_.workspace, "show", f"HEAD:{name}"), round_.params)


def differing(before: Params, now: Params) -> Mapping[str, tuple[str, str]]:
    """The keys in which two params.yaml differ, as `train.learning_rate`: what stood there and what stands there."""
    old, new = (flat_params(each.model_dump(by_alias=True)) for each in (before, now))
    keys = [*old, *(key for key in new if key not in old)]
    return {key: (old.get(key, "–"), new.get(key, "–")) for key in keys if old.get(key) != new.get(key)}

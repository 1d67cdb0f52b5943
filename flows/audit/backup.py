"""A campaign → a folder, and such a folder → a workspace and the projects of another machine's Label Studio.

The folder holds the whole Git history (campaign.bundle), what DVC keeps of every round (store/), the open round's own
files (open/), players' names (play/) and the Label Studio projects (label-studio.json); backup.json, written last, has
the digest of each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from data.files import md5, write_whole
from data.layout import Workspace
from flows.campaign import load, say
from tasks.workspace.dvc import dvc, dvc_remote, remove_remote, write_remote
from tasks.workspace.git import WorkspaceError, check_branch, git
from tasks.workspace.lock import lock
from tasks.workspace.rounds import closed, rounds

FORM = 1  # of the folder
PROJECTS, BUNDLE, LIST = "label-studio.json", "campaign.bundle", "backup.json"
RESTORED = "restored"  # a DVC remote, for a moment


def backup(root: Path, folder: Path) -> None:
    """Write the campaign into a new folder; what the open round's people did is pulled first."""
    from tasks.labelling.export import collected, take
    from tasks.pull import pull
    from tasks.record.record import Record

    campaign = load(root)
    workspace = campaign.workspace
    check_branch(workspace)
    if folder.exists():
        raise WorkspaceError(f"expected a new folder, {folder} is there; name another")
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with lock(workspace):
        now, there = campaign.current, rounds(workspace)
        if now is not None and now.number > 0:
            pull(campaign.studio, Record.read(now))
        git(workspace, "bundle", "create", "--quiet", str(new / BUNDLE), "--all", "HEAD")
        _push(workspace, new / "store")
        if now is not None:
            shutil.copytree(now.folder, new / "open" / now.name)
            shutil.copy2(workspace.index, new / "open" / "index.json")
            shutil.copy2(workspace.root / "dvc.lock", new / "open" / "dvc.lock")
        if (workspace.local / "play").exists():
            shutil.copytree(workspace.local / "play", new / "play")
        last = there[-1] if there else workspace.round(0)
        projects = take(campaign.studio, collected(last)) if last.number > 0 else []
        write_whole(new / PROJECTS, json.dumps(projects) + "\n")
    files = {str(p.relative_to(new)): md5(p) for p in sorted(new.rglob("*")) if p.is_file()}
    branch = git(workspace, "rev-parse", "--abbrev-ref", "HEAD")
    described = {"form": FORM, "campaign": campaign.params.campaign, "branch": branch, "files": files}
    write_whole(new / LIST, json.dumps(described, indent=1) + "\n")
    new.rename(folder)
    made = sum(len(task["annotations"]) for project in projects for task in project["tasks"])
    say(f"{folder}: {len(closed(workspace))} closed rounds, {len(projects)} projects, {made} annotations")


def restore(folder: Path, root: Path) -> None:
    """Make a workspace of a backup: Git, DVC's files, the open round."""
    described = check(folder)
    if root.exists():
        raise WorkspaceError(f"expected a new folder, {root} is there; name another")
    new = root.with_name(root.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    workspace = Workspace(new)
    git(workspace, "init", "--quiet", "--initial-branch", described["branch"])
    everything = ("refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")
    git(workspace, "fetch", "--quiet", "--update-head-ok", str((folder / BUNDLE).resolve()), *everything)
    git(workspace, "reset", "--quiet", "--hard")
    _pull(workspace, folder / "store", root / ".dadc" / "remote")
    if (folder / "open").exists():
        shutil.copytree(folder / "open", workspace.rounds, dirs_exist_ok=True)
        (workspace.rounds / "dvc.lock").replace(new / "dvc.lock")
    if (folder / "play").exists():
        shutil.copytree(folder / "play", workspace.local / "play")
    new.rename(root)
    say(f"{root} holds the campaign; in it `dadc up`, then `dadc restore {folder}` for its Label Studio projects")


def restore_projects(root: Path, folder: Path, tell: Callable[[str], None] = say) -> None:
    """Put a backup's projects into the workspace's Label Studio; twice is once."""
    from tasks.labelling import id_map
    from tasks.labelling.export import put

    check(folder)
    campaign = load(root)
    at = id_map.path(campaign.workspace)
    with lock(campaign.workspace):
        if at.exists():  # written last
            tell("the backup's projects are in Label Studio")
            return
        taken = json.loads((folder / PROJECTS).read_text())
        id_map.write(at, put(campaign.studio, campaign.services, taken, tell))
    tell("people keep their address and need a new password: Label Studio's administrator sets it")


def check(folder: Path) -> dict[str, str]:
    """What the backup says of itself, after a look at every file's digest."""
    if not (folder / LIST).exists():
        raise WorkspaceError(f"expected a folder made by `dadc backup`, {folder} has no {LIST}")
    described = json.loads((folder / LIST).read_text())
    if described["form"] != FORM:
        raise WorkspaceError(f"expected a backup of form {FORM}, {folder} is of form {described['form']}")
    for name, digest in described["files"].items():
        if not (folder / name).exists() or md5(folder / name) != digest:
            raise WorkspaceError(f"{folder / name} is not the file that was backed up; take another copy of the backup")
    named: dict[str, str] = described
    return named


def _push(workspace: Workspace, store: Path) -> None:
    """What DVC keeps of every round → a store of its own. WorkspaceError for what is neither here nor in the remote."""
    name = "backup"
    store.mkdir()
    for what in (["--all-tags"], []):
        dvc(workspace, "fetch", *what, quiet=True, say=say)
    write_remote(workspace, name, str(store), local=True)
    try:
        dvc(workspace, "push", "--all-tags", "--remote", name, quiet=True, say=say)
        dvc(workspace, "push", "--remote", name, quiet=True, say=say)
    finally:
        remove_remote(workspace, name)
    for path, digest in _kept(workspace).items():  # which a push passes over if they are nowhere
        if not (store / "files" / "md5" / digest[:2] / digest[2:]).exists():
            raise WorkspaceError(
                f"{path.relative_to(workspace.root)} is neither in DVC's cache nor in its remote, and a backup would "
                "lack it; `dvc push` from where it is"
            )


def _kept(workspace: Workspace) -> dict[Path, str]:
    """What DVC keeps of the campaign's data and of closed rounds: path → MD5."""
    from tasks.workspace.dvc import pointer_digest
    from tasks.workspace.reproduce import digests

    known = {workspace.root / name for name in git(workspace, "ls-files").splitlines()}  # Git keeps the small ones
    kept = {path.with_suffix(""): pointer_digest(path.read_text()) for path in known if path.suffix == ".dvc"}
    kept |= {path: digest for round_ in closed(workspace) for path, digest in digests(round_).items()}
    return {path: kept[path] for path in sorted(kept.keys() - known)}


def _pull(workspace: Workspace, store: Path, own: Path) -> None:
    """A backup's store → the workspace. A remote elsewhere stays the campaign's; one that was a folder of the old
    workspace's becomes the new one's. own: where that will be."""
    name, url = dvc_remote(workspace)
    back = shutil.copytree(store, workspace.local / "remote")
    write_remote(workspace, RESTORED, str(back), local=True)
    dvc(workspace, "pull", "--remote", RESTORED, quiet=True, say=say)
    remove_remote(workspace, RESTORED)
    if "://" in url:
        say(f"rounds that are closed here go to the campaign's remote, {url}, as before")
    else:
        write_remote(workspace, name, str(own), local=True)

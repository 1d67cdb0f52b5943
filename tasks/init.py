"""The campaign's data set → four frozen splits under DVC, and the remote they are pushed to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path

from data.files import md5, write_whole
from data.layout import SPLITS, Workspace
from data.shards import write_images
from tasks.params import Params, check_kinds, module_of
from tasks.seeds import derive
from tasks.workspace import WorkspaceError, commit, dvc

REMOTE = "store"


def init(workspace: Workspace, params: Params, remote: str | None, say: Callable[[str], None]) -> None:
    """Freeze the data, add them to DVC, set the remote, commit, push. What is done already is left alone.

    remote: a folder's absolute path or an address DVC knows; None: the one that is set, else `.dadc/remote`.
    """
    check_kinds(params)
    check_remote(remote)
    if not workspace.splits.exists():
        freeze_data(workspace, params, say)
    check_campaign(workspace, params)
    freeze_others(workspace, params, say)
    set_remote(workspace, remote)
    files = [*map(workspace.split, SPLITS), *map(workspace.other, params.evaluate.sets)]
    missing = [path for path in files if not _pointer(path).exists()]
    if missing:
        dvc(workspace, "add", "--quiet", *map(str, missing), say=say)
    pointers = list(map(_pointer, files))
    config = workspace.root / ".dvc" / "config"
    commit(workspace, "Freeze the campaign's data", workspace.splits, workspace.base / ".gitignore", config, *pointers)
    dvc(workspace, "push", "--quiet", *(str(pointer) for pointer in pointers), say=say)


def freeze_data(workspace: Workspace, params: Params, say: Callable[[str], None]) -> None:
    """Load the set, split its training part by the seed, write the images and splits.json."""
    from data.mapped import scratch
    from data.splitting import split_rows

    choice = params.data
    module = module_of("data.sets", choice.set, "data.set")
    root = Path(choice.root) if choice.root else workspace.local / "data"
    say(f"reading {choice.set}")
    given = {"root": root, "size": choice.size, "channels": choice.channels, "seed": params.seed}
    with scratch(workspace.local / "scratch"):
        train, test = module.load("train", **given), module.load("test", **given)
    if train.classes != test.classes:
        raise ValueError(f"train and test must have the same classes, got {train.classes} and {test.classes}")
    rows = split_rows(
        train,
        pool=choice.pool,
        validation=choice.validation,
        limit=choice.limit,
        seed=derive(params.seed, "splits"),
    )
    sizes = {name: len(rows[name]) if name in rows else len(test) for name in SPLITS}
    for name in SPLITS:
        write_images(workspace.split(name), train if name in rows else test, rows.get(name))
        say(f"  {name:<10} {sizes[name]:>7} images")
    described = {
        "campaign": params.campaign,
        "id": secrets.token_hex(3),  # tells it from others of its name on the same servers
        "set": choice.set,
        "classes": list(train.classes),
        "channels": train.channels,
        "size": train.size,
        "seed": params.seed,
        "splits": {n: {"n": sizes[n], "md5": md5(workspace.split(n))} for n in SPLITS},
    }
    write_whole(workspace.splits, json.dumps(described, indent=2, ensure_ascii=False) + "\n")


def freeze_others(workspace: Workspace, params: Params, say: Callable[[str], None]) -> None:
    """Write the images of `evaluate.sets` that are not frozen yet, at the campaign's size and channels."""
    wanted = {n: given for n, given in params.evaluate.sets.items() if not _pointer(workspace.other(n)).exists()}
    if not wanted:
        return
    from data.mapped import scratch
    from data.others import load_other

    frozen = json.loads(workspace.splits.read_text())
    for name, given in wanted.items():
        folder = workspace.root / Path(given).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"evaluate.sets.{name}: a folder is wanted at {folder} and is not there")
        with scratch(workspace.local / "scratch"):
            found = load_other(folder, frozen["classes"], size=frozen["size"], channels=frozen["channels"])
        write_images(workspace.other(name), found)
        say(f"  {name:<10} {len(found):>7} images from elsewhere")


def check_same(workspace: Workspace, params: Params) -> None:
    """Refuse a params.yaml whose campaign, network or further sets are not those of the frozen data."""
    check_campaign(workspace, params)
    for name in params.evaluate.sets:
        if not _pointer(workspace.other(name)).exists():
            raise WorkspaceError(f"evaluate.sets.{name} is not frozen yet; `dadc init` does it")


def check_campaign(workspace: Workspace, params: Params) -> None:
    """Refuse a params.yaml of another campaign than the frozen data, or with a network that does not fit them."""
    frozen = json.loads(workspace.splits.read_text())
    for key, now in (("campaign", params.campaign), ("set", params.data.set), ("seed", params.seed)):
        if frozen[key] != now:
            where = "data.set" if key == "set" else key
            raise WorkspaceError(
                f"params.yaml: {where}: wanted {frozen[key]!r}, which this workspace holds, got {now!r}; "
                "another campaign goes into another clone"
            )
    if ":" in params.model.name or params.model.weights is not None or params.first.weights is not None:
        from tasks.networks import check_given

        for number in (0, 1):
            check_given(params, number, workspace.root, len(frozen["classes"]), frozen["channels"], frozen["size"])


def check_remote(remote: str | None) -> None:
    """Refuse a relative path: it would mean another folder in every clone."""
    if remote and "://" not in remote and not Path(remote).expanduser().is_absolute():
        raise WorkspaceError(f"--remote wants an absolute path or an address, got {remote!r}")


def set_remote(workspace: Workspace, remote: str | None) -> None:
    """Name the DVC remote by an absolute path or address, so that a clone elsewhere can pull."""
    config = workspace.root / ".dvc" / "config"
    if remote is None:
        if f'remote "{REMOTE}"' in config.read_text():
            return
        remote = str(workspace.local / "remote")
    if "://" not in remote:
        folder = Path(remote).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        remote = str(folder)
    dvc(workspace, "remote", "add", "--quiet", "--force", "--default", REMOTE, remote)


def _pointer(path: Path) -> Path:
    return path.with_name(path.name + ".dvc")

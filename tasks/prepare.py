"""The campaign's data set → four frozen splits under DVC, and the remote they are pushed to."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import contact_sheet
from data.files import md5, write_whole
from data.layout import GATE, SPLITS, Workspace, pointer
from data.names import class_faults
from data.records import ImageSpec
from data.shards import write_images
from tasks.config.kinds import check_kinds, module_of
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.quality.dataset import faults_of
from tasks.record.pool import check_pool
from tasks.workspace import inputs
from tasks.workspace.checkout import check_place, image_spec, initialised, pool_size
from tasks.workspace.dvc import check_remote_address, dvc, remote_set
from tasks.workspace.git import WorkspaceError, commit
from tasks.workspace.rounds import rounds

if TYPE_CHECKING:
    from torch import Tensor

    from data.shards import Images

DEFAULT_NAME = "digits"  # of the campaign, and of its data set, in params.yaml as it comes
LISTED = 5  # classes of which each is told; of more the smallest and the largest
ASKED = (
    "size",
    "channels",
    "limit",
    "pool",
    "validation",
    "gate",
    "fit",
    "test_share",
)  # keys of `data`: what was frozen


@dataclass(frozen=True)
class ReadSet:
    """A data set as it was read, and the rows of its training part that each split takes."""

    train: Images
    test: Images
    rows: dict[str, Tensor]


@dataclass(frozen=True)
class How:
    """How `dadc init` goes about it. strict: what it would warn of is refused; again: data that no round hangs on yet
    are frozen anew; dry: it reads, checks and writes a contact sheet, and freezes nothing."""

    strict: bool = False
    again: bool = False
    dry: bool = False


def init(
    workspace: Workspace, params: Params, remote: str | None, say: Callable[[str], None], how: How | None = None
) -> None:
    """Set the remote, freeze the data, add them to DVC, push, commit. What is done already is left alone.

    What can be refused is refused before anything is frozen. The commit comes last and says that all is done.
    remote: a folder's absolute path or an address DVC knows; None: the one that is set, else `.dadc/remote`.
    """
    how = how or How()
    check_place(workspace)
    check_kinds(params)
    check_remote_address(remote)
    anew = how.dry or to_freeze(workspace, params, again=how.again)
    others = list(params.evaluate.sets) if anew else _sets_to_freeze(workspace, params)
    for name in others:
        _folder(workspace, params, name)
    if how.dry:
        found, _ = read_all(workspace, params, anew, others, how.strict, say)
        assert found is not None
        sheet = workspace.local / "contact-sheet.png"
        classes = contact_sheet.write(sheet, found.train)
        say(f"nothing is frozen; {sheet} shows training images as the network will see them, a row for each of")
        say(f"  {', '.join(classes)}")
        return
    with remote_set(workspace, remote):
        found, read = read_all(workspace, params, anew, others, how.strict, say)
    if found is not None:
        shutil.rmtree(workspace.base, ignore_errors=True)  # of an init that was cut short
        write_set(workspace, params, found, say)
    write_others(workspace, read, say)
    files = [*map(workspace.split, splits(params)), *map(workspace.other, params.evaluate.sets)]
    missing = [path for path in files if not pointer(path).exists()]
    if missing:
        dvc(workspace, "add", *missing, quiet=True, say=say)
    pointers = list(map(pointer, files))
    dvc(workspace, "push", *pointers, quiet=True, say=say)
    config = workspace.root / ".dvc" / "config"
    commit(workspace, "Freeze the campaign's data", workspace.splits, workspace.base / ".gitignore", config, *pointers)


def to_freeze(workspace: Workspace, params: Params, *, again: bool = False) -> bool:
    """Whether the set is still to be frozen: it never was, or otherwise by an `init` that was cut short, or `again`.

    WorkspaceError where frozen data are not those of params.yaml and something may hang on them.
    """
    done = initialised(workspace)
    if again:
        if begun := rounds(workspace):
            raise WorkspaceError(
                f"--again is for a campaign without rounds, and round {begun[0].name} hangs on the frozen data; other "
                "data go into another clone"
            )
        return True
    if not workspace.splits.exists():
        if done:
            raise WorkspaceError(f"{workspace.splits} is committed and gone; `git restore data/base` brings it back")
        return True
    try:
        check_data(workspace, params)
    except WorkspaceError as error:
        if rounds(workspace):
            raise
        if done:
            raise WorkspaceError(f"{error}; while there is no round, `dadc init --again` freezes them anew") from error
        return True
    return False


def read_all(
    workspace: Workspace, params: Params, anew: bool, others: Sequence[str], strict: bool, say: Callable[[str], None]
) -> tuple[ReadSet | None, dict[str, Images]]:
    """The set, if it is to be frozen anew, and these of `evaluate.sets`. What may mislead in them is said first; then
    the pool is seen to hold what a round needs, and the network to fit the images."""
    found = read_set(workspace, params, say) if anew else None
    spec = image_spec(workspace) if found is None else found.train.spec
    read = read_others(workspace, params, spec, others)
    if found is not None:
        look_over(params, found, read, say, strict=strict)
    check_pool(params, pool_size(workspace) if found is None else len(found.rows["pool"]))
    check_network(workspace, params, None if found is None else found.train)
    return found, read


def look_over(
    params: Params, found: ReadSet, others: dict[str, Images], say: Callable[[str], None], *, strict: bool
) -> None:
    """Say what may mislead in the data that are about to be frozen. ValueError, a line each, if `strict`."""
    warnings = faults_of(found.train, found.test, others)
    if params.campaign == DEFAULT_NAME and params.data.set != DEFAULT_NAME:
        warnings.append(
            f"the campaign is still called {DEFAULT_NAME}, and its data are not: set `campaign` in params.yaml, for "
            "it names the projects in Label Studio, Prefect and MLflow and cannot change later"
        )
    if strict and warnings:
        raise ValueError("\n".join([*warnings, "--strict: nothing is frozen"]))
    for line in warnings:
        say(f"warning: {line}")


def splits(params: Params) -> tuple[str, ...]:
    """The names of the splits that params.yaml asks for."""
    return (*SPLITS, GATE) if params.data.gate else SPLITS


def freeze_data(workspace: Workspace, params: Params, say: Callable[[str], None]) -> None:
    """Load the set, split its training part by the seed, write the images and splits.json."""
    write_set(workspace, params, read_set(workspace, params, say), say)


def read_set(workspace: Workspace, params: Params, say: Callable[[str], None]) -> ReadSet:
    """Load the set and split its training part by the seed. ValueError for a set that cannot be used."""
    from data.memmap import scratch
    from data.splitting import split_rows

    choice = params.data
    module = module_of("data.sets", choice.set, "data.set")
    root = _place(workspace, "data.root", choice.root) if choice.root else workspace.local / "data"
    say(f"reading {choice.set}")
    given = {"root": root, "size": choice.size, "channels": choice.channels, "seed": params.seed}
    given |= {key: getattr(choice, key) for key in getattr(module, "OPTIONS", ())}
    with scratch(workspace.local / "scratch"):
        train, test = module.load("train", **given), module.load("test", **given)
    if train.classes != test.classes:
        raise ValueError(f"train and test must have the same classes, got {train.classes} and {test.classes}")
    if faults := class_faults(train.classes):
        raise ValueError("\n".join(faults))
    bare = [name for name, count in zip(test.classes, _counts(test.labels_N, test.classes), strict=True) if count == 0]
    if bare:
        raise ValueError(
            f"every class needs test images, none of {', '.join(bare[:LISTED])} was found; bring some, or take the "
            "class out of the training part: an accuracy without it would mislead"
        )
    rows = split_rows(
        train,
        pool=choice.pool,
        validation=choice.validation,
        gate=choice.gate,
        limit=choice.limit,
        seed=derive(params.seed, "splits"),
    )
    return ReadSet(train, test, rows)


def write_set(workspace: Workspace, params: Params, found: ReadSet, say: Callable[[str], None]) -> None:
    """Write the images of the splits, and splits.json, which is there once all of them are."""
    train, sizes = found.train, {}
    for name in splits(params):
        part, rows = (train, found.rows[name]) if name in found.rows else (found.test, None)
        labels_N = part.labels_N if rows is None else part.labels_N[rows]
        sizes[name] = len(labels_N)
        write_images(workspace.split(name), part, rows)
        say(f"  {name:<10} {sizes[name]:>7} images: {by_class(labels_N, train.classes)}")
    described = {
        "campaign": params.campaign,
        "id": secrets.token_hex(3),  # tells it from others of its name on the same servers
        "set": params.data.set,
        "classes": list(train.classes),
        "channels": train.channels,
        "size": train.size,
        "seed": params.seed,
        "asked": {key: getattr(params.data, key) for key in ASKED},
        "splits": {n: {"n": sizes[n], "md5": md5(workspace.split(n))} for n in splits(params)},
    }
    write_whole(workspace.splits, json.dumps(described, indent=2, ensure_ascii=False) + "\n")


def freeze_others(workspace: Workspace, params: Params, say: Callable[[str], None]) -> None:
    """Write the images of `evaluate.sets` that are not frozen yet, at the campaign's size and channels."""
    missing = _sets_to_freeze(workspace, params)
    write_others(workspace, read_others(workspace, params, image_spec(workspace), missing), say)


def read_others(workspace: Workspace, params: Params, spec: ImageSpec, names: Sequence[str]) -> dict[str, Images]:
    """These sets of `evaluate.sets`, by their names, in the form of the campaign's images."""
    if not names:
        return {}
    from data.external_sets import load_other
    from data.memmap import scratch

    folders = {name: _folder(workspace, params, name) for name in names}
    form: dict[str, Any] = {"size": spec.size, "channels": spec.channels, "fit": params.data.fit}
    with scratch(workspace.local / "scratch"):
        return {name: load_other(folder, spec.classes, **form) for name, folder in folders.items()}


def write_others(workspace: Workspace, others: dict[str, Images], say: Callable[[str], None]) -> None:
    """Write each set's images; its .dvc file says that it is frozen."""
    for name, found in others.items():
        write_images(workspace.other(name), found)
        say(f"  {name:<10} {len(found):>7} images from elsewhere: {by_class(found.labels_N, found.classes)}")


def by_class(labels_N: Tensor, classes: Sequence[str]) -> str:
    """How many images each class has: all of a few classes, the smallest and the largest of many."""
    counts = _counts(labels_N, classes)
    if len(classes) <= LISTED:
        return ", ".join(f"{count} {name}" for name, count in zip(classes, counts, strict=True))
    least, most = counts.index(min(counts)), counts.index(max(counts))
    if counts[least] == counts[most]:
        return f"{counts[least]} of each class"
    return f"from {counts[least]} of {classes[least]} to {counts[most]} of {classes[most]}"


def check_same(workspace: Workspace, params: Params) -> None:
    """Refuse a params.yaml whose campaign, data, network or further sets are not those of the frozen data."""
    check_data(workspace, params)
    check_network(workspace, params)
    missing = _sets_to_freeze(workspace, params)
    if missing:
        raise WorkspaceError(f"evaluate.sets.{missing[0]} is not frozen yet; `dadc init` does it")


def check_data(workspace: Workspace, params: Params) -> None:
    """Refuse a params.yaml of another campaign than the frozen data, or that asks for other data.

    `data.root` may be another: where a set lies differs from machine to machine, and nothing is read there any more.
    """
    frozen = json.loads(workspace.splits.read_text())
    asked = frozen.get("asked") or _seen(frozen, params.data.limit)
    held = {"campaign": frozen["campaign"], "data.set": frozen["set"], "seed": frozen["seed"]}
    default = {key: field.default for key, field in type(params.data).model_fields.items()}
    held |= {f"data.{key}": asked.get(key, default[key]) for key in ASKED}
    now = {"campaign": params.campaign, "data.set": params.data.set, "seed": params.seed}
    now |= {f"data.{key}": getattr(params.data, key) for key in ASKED}
    for key, wanted in held.items():
        own = frozen[key.removeprefix("data.")] if key in ("data.size", "data.channels") else wanted
        if now[key] not in (wanted, own):
            raise WorkspaceError(
                f"params.yaml: {key}: expected {_yaml(wanted)}, by which this workspace's data are frozen, got "
                f"{_yaml(now[key])}; set it back, another campaign goes into another clone"
            )


def _seen(frozen: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """What a campaign asked for that was frozen before this was written down, as far as its splits tell."""
    sizes = {name: part["n"] for name, part in frozen["splits"].items()}
    taken = sizes["train"] + sizes["pool"] + sizes["validation"]
    return {"size": None, "channels": None, "limit": limit and max(limit, taken), **sizes}


def check_network(workspace: Workspace, params: Params, images: Images | None = None) -> None:
    """Refuse a network or weights of the user's own that do not fit the images, or that attacks cannot measure.

    images: the training part of a set that is not frozen yet; None: the frozen ones.
    """
    from tasks.engine.networks import check_given, is_given

    if is_given(params):
        images = inputs.images(workspace, "validation") if images is None else images
        for number in (0, 1):
            check_given(params, number, workspace.root, images)


def _sets_to_freeze(workspace: Workspace, params: Params) -> list[str]:
    return [name for name in params.evaluate.sets if not pointer(workspace.other(name)).exists()]


def _folder(workspace: Workspace, params: Params, name: str) -> Path:
    folder = _place(workspace, f"evaluate.sets.{name}", params.evaluate.sets[name])
    if not folder.is_dir():
        raise FileNotFoundError(f"evaluate.sets.{name}: expected a folder at {folder}, and there is none")
    return folder


def _place(workspace: Workspace, key: str, given: str) -> Path:
    """A path in params.yaml, from the workspace's root; ~ is a user's home."""
    try:
        return workspace.root / Path(given).expanduser()
    except RuntimeError as error:
        raise WorkspaceError(f"params.yaml: {key}: expected a path, got {given!r}, which names no user here") from error


def _counts(labels_N: Tensor, classes: Sequence[str]) -> list[int]:
    counts: list[int] = labels_N.bincount(minlength=len(classes)).tolist()
    return counts


def _yaml(value: object) -> str:
    return "null" if value is None else repr(value)

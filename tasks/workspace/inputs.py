"""The frozen inputs of a stage: base splits, shards and weights, each held against the digest that was written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from data.files import md5
from data.layout import Round, Workspace, pointer
from data.shards import Images, read_mapped
from tasks.config.params import Params
from tasks.workspace.checkout import read_splits
from tasks.workspace.dvc import pointer_digest


def images(workspace: Workspace, split: str) -> Images:
    """One split's images, over a file of raw pixels; ValueError if the split is not the one that was frozen."""
    content = read_splits(workspace)
    digest = content["splits"][split]["md5"]
    path = with_digest(workspace.split(split), digest)
    return _mapped(workspace, path, digest, content)


def _mapped(workspace: Workspace, path: Path, digest: str, content: dict[str, Any]) -> Images:
    pixels = workspace.pixels(digest)
    pixels.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(pixels.with_suffix(".lock")):  # of several processes, one makes the file
        return read_mapped(path, content["channels"], content["size"], pixels)


def external_set(workspace: Workspace, name: str) -> Images:
    """The frozen images of a set of `evaluate.sets`, whose digest its .dvc file has."""
    content, path = read_splits(workspace), workspace.other(name)
    dvc_file = pointer(path)
    if not dvc_file.exists():
        raise FileNotFoundError(f"{dvc_file} is missing; `dadc init` freezes evaluate.sets.{name}")
    digest = pointer_digest(dvc_file.read_text(encoding="utf-8"))
    return _mapped(workspace, with_digest(path, digest), digest, content)


def with_digest(path: Path, digest: str) -> Path:
    """The path, if its file has that MD5 digest."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; `dvc pull` brings what DVC keeps")
    actual = md5(path)
    if actual != digest:
        raise ValueError(
            f"{path} is not what was frozen: expected md5 {digest}, got {actual}; "
            "`dvc checkout` brings the frozen file back"
        )
    return path


@dataclass(frozen=True)
class Lineage:
    """What a round's challenger is made from; every file in it has the digest that lineage.json gives."""

    target: Path | None  # the target's weights; None in round 000
    target_round: int | None
    shards: tuple[Path, ...]  # of all rounds up to this one, in order
    weights: Path | None = None  # a user's trained weights that it starts from
    champions: Mapping[int, tuple[Path, str]] = field(default_factory=dict)  # round → weights and MD5, not yet compared
    precision: str | None = None  # what `precision: auto` came to; None where nothing was auto

    def settled(self, params: Params) -> Params:
        """The round's parameters with what `auto` came to; ValueError where that was never found out."""
        if self.precision is not None:
            return params.with_precision(self.precision)
        if "auto" in (params.train.precision, params.evaluate.precision):
            raise ValueError(
                "lineage.json must say what precision: auto came to, and does not; set fp32 or bf16 in params.yaml, "
                "commit that, and `dadc amend` has the round take it"
            )
        return params


def lineage(round_: Round) -> Lineage:
    """Read lineage.json and check the target's, the shards' and the base splits' digests."""
    if not round_.lineage.exists():
        raise FileNotFoundError(f"{round_.lineage} is missing; `dadc close` freezes the round")
    content = json.loads(round_.lineage.read_text(encoding="utf-8"))
    root, target = round_.workspace.root, content["target"]
    shards = sorted(content["shards"], key=lambda shard: int(shard["round"]))
    frozen = {name: part["md5"] for name, part in read_splits(round_.workspace)["splits"].items()}
    other = [name for name, digest in content["base"].items() if frozen.get(name) != digest]
    if other:
        raise ValueError(f"{round_.lineage} names another {other[0]} split than data/base/splits.json")
    return Lineage(
        target=None if target is None else with_digest(root / target["path"], target["md5"]),
        target_round=None if target is None else int(target["round"]),
        shards=tuple(with_digest(root / shard["path"], shard["md5"]) for shard in shards),
        weights=with_digest(root / given["path"], given["md5"]) if (given := content.get("weights")) else None,
        champions={int(each["round"]): (root / each["path"], each["md5"]) for each in content.get("champions", ())},
        precision=content["environment"].get("precision"),
    )

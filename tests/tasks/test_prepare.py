"""`dadc init` by real Git and DVC: cut short, and again after something in params.yaml was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.files import md5
from data.layout import SPLITS, Workspace, pointer
from flows.reports.status import advice
from tasks.config.params import Params, ParamsError, read
from tasks.prepare import How, by_class, check_data, check_same, freeze_data, init, read_set
from tasks.workspace import inputs
from tasks.workspace.checkout import check_initialised, check_place, initialised, read_splits
from tasks.workspace.dvc import check_remote, dvc_remote, pointer_digest
from tasks.workspace.git import WorkspaceError, git


def changed(params: Params, **data: object) -> Params:
    """The same with other values in `data`."""
    return params.model_copy(update={"data": params.data.model_copy(update=data)})


def photos(root: Path, test: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A folder of photos, four a class in train and one in test."""
    for split, names, n in (("train", ("cat", "dog"), 4), ("test", test, 1)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                Image.new("L", (30, 30), 50 * i).save(root / split / name / f"{i}.png")
    return root


FLAT = """
from torch import nn


class Rounded(nn.Linear):
    def forward(self, images):
        return super().forward((images * 255).round().flatten(1) / 255)


def build(num_classes, channels, size):
    return nn.Flatten()


def rounded(num_classes, channels, size):
    return Rounded(channels * size * size, num_classes)
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> tuple[Workspace, Params]:
    """A workspace whose data are frozen."""
    params = changed(read(checkout / "params.yaml"), limit=300, pool=60, validation=60, gate=40)
    workspace = Workspace(tmp_path_factory.mktemp("frozen"))
    freeze_data(workspace, params, print)
    return workspace, params


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [("pool", 50, 60), ("validation", 50, 60), ("size", 32, "null"), ("channels", 3, "null"), ("limit", 400, 300)],
)
def test_other_data_than_the_frozen_are_refused(
    frozen: tuple[Workspace, Params], key: str, value: int, wanted: object
) -> None:
    workspace, params = frozen
    said = rf"data\.{key}: expected {wanted}, by which this workspace's data are frozen, got {value}; set it back"
    with pytest.raises(WorkspaceError, match=said):
        check_same(workspace, changed(params, **{key: value}))
    with pytest.raises(WorkspaceError, match=r"data\.limit: expected 300, .* got null"):
        check_data(workspace, changed(params, limit=None))


def test_what_says_the_same_of_the_data_is_taken(frozen: tuple[Workspace, Params]) -> None:
    workspace, params = frozen
    check_data(workspace, params)
    check_data(workspace, changed(params, size=28, channels=1))
    check_data(workspace, changed(params, root="/of/another/machine"))


def test_a_campaign_that_was_frozen_before_what_it_asked_for_was_written_down(
    frozen: tuple[Workspace, Params], tmp_path: Path
) -> None:
    before, params = frozen
    content = json.loads(before.splits.read_text())
    del content["asked"]
    workspace = Workspace(tmp_path)
    workspace.base.mkdir(parents=True)
    workspace.splits.write_text(json.dumps(content))
    check_data(workspace, params)
    for key, value in (("pool", 50), ("validation", 50), ("size", 32), ("channels", 3), ("limit", 200)):
        with pytest.raises(WorkspaceError, match=rf"data\.{key}: expected"):
            check_data(workspace, changed(params, **{key: value}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"pool": 4}}, r"a round needs \d+ seed images .*, the pool holds 4; lower attack\.count"),
        ({"evaluate": {"sets": {"usps": "/nope"}}}, r"evaluate\.sets\.usps: expected a folder at /nope"),
        ({"evaluate": {"sets": {"code": "tasks"}}}, "tasks has classes that train does not have"),
        ({"model": {"name": "flat:build"}}, r"flat:build must turn images of 2×1×28×28 into logits of 2×10"),
        ({"model": {"name": "flat:rounded"}}, r"flat:rounded cannot be evaluated .* 16 of 16 images has no gradient"),
        ({"first": {"weights": "/nope.safetensors"}}, r"first\.weights: expected a safetensors file at /nope"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_frozen(
    make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], said: str
) -> None:
    workspace = Workspace(make_workspace(**changes))
    monkeypatch.syspath_prepend(workspace.root)
    (workspace.root / "flat.py").write_text(FLAT)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        init(workspace, read(workspace.params), None, print)
    assert not workspace.base.exists()
    assert git(workspace, "status", "--porcelain") == "?? flat.py", "the remote is not set either"


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ("{tmp}/file/below", "Not a directory"),
        ("s4://bucket/digits", "Unsupported URL type s4://"),
        ("https://127.0.0.1:9/digits", "Cannot connect"),
        ("", "an absolute path or an address, got ''"),
    ],
)
def test_a_remote_that_takes_nothing_is_refused_before_all_else(
    make_workspace: Callable[..., Path], tmp_path: Path, remote: str, said: str
) -> None:
    workspace = Workspace(make_workspace())
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=f"--remote wants .*{said}"):
        init(workspace, read(workspace.params), remote.format(tmp=tmp_path), print)
    assert not workspace.base.exists()
    assert git(workspace, "status", "--porcelain") == "", "the remote of before stays"


def test_a_workspace_may_lie_in_a_folder_of_any_name(make_workspace: Callable[..., Path]) -> None:
    workspace = Workspace(make_workspace("été, run #1 = [x] $z & 'q'"))
    init(workspace, read(workspace.params), None, print)
    check_remote(workspace)
    assert dvc_remote(workspace) == ("store", str(workspace.local / "remote"))
    digest = md5(workspace.split("pool"))
    assert (workspace.local / "remote" / "files" / "md5" / digest[:2] / digest[2:]).exists()


@pytest.mark.parametrize("character", ["{", "}", "?", "%", "\n", "\udce9"])
def test_a_folder_whose_name_other_programs_change_is_refused(tmp_path: Path, character: str) -> None:
    workspace = Workspace(tmp_path / f"run {character}1")
    with pytest.raises(WorkspaceError, match=r"the workspace lies in .* Move the workspace to a folder without it"):
        check_place(workspace)


@pytest.fixture
def cut_short(make_workspace: Callable[..., Path]) -> Workspace:
    """A workspace whose `dadc init` failed at its commit."""
    workspace = Workspace(make_workspace())
    hook = workspace.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho the disk is full >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(WorkspaceError, match="git commit .*failed: the disk is full"):
        init(workspace, read(workspace.params), None, print)
    hook.unlink()
    return workspace


def test_an_init_that_was_cut_short_is_gone_on_with(cut_short: Workspace) -> None:
    workspace, frozen = cut_short, cut_short.splits.read_bytes()
    assert not initialised(workspace)
    with pytest.raises(WorkspaceError, match="`dadc init` was cut short; run it again"):
        check_initialised(workspace)
    assert advice(workspace.root) == "next: `dadc init` again, it was cut short"
    init(workspace, read(workspace.params), None, print)
    assert workspace.splits.read_bytes() == frozen
    assert check_initialised(workspace).size == json.loads(frozen)["size"]
    assert advice(workspace.root).startswith("next: `dadc open`")
    assert git(workspace, "status", "--porcelain") == ""


def test_an_init_that_was_cut_short_leaves_params_yaml_free(cut_short: Workspace) -> None:
    workspace = cut_short
    init(workspace, changed(read(workspace.params), pool=50, channels=3), None, print)
    splits = read_splits(workspace)
    assert (splits["splits"]["pool"]["n"], check_initialised(workspace).channels) == (50, 3)
    for name in SPLITS:
        path = workspace.split(name)
        assert pointer_digest(pointer(path).read_text()) == md5(path) == splits["splits"][name]["md5"]


def test_a_set_lies_under_a_users_home(
    make_workspace: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    photos(tmp_path / "photos")
    workspace = Workspace(
        make_workspace(data={"set": "folder", "root": "~/photos", "pool": 2, "validation": 2, "gate": 0})
    )
    params = read(workspace.params)
    assert len(read_set(workspace, params, print).train) == 8
    with pytest.raises(WorkspaceError, match=r"data\.root: expected a path, got '~nobody-here/x', which names no"):
        read_set(workspace, changed(params, root="~nobody-here/x"), print)


def test_a_class_without_test_images_is_refused(make_workspace: Callable[..., Path], tmp_path: Path) -> None:
    root = str(photos(tmp_path / "photos", test=("cat",)))
    workspace = Workspace(make_workspace(data={"set": "folder", "root": root, "pool": 2, "validation": 2, "gate": 0}))
    with pytest.raises(ValueError, match="every class needs test images, none of dog was found; bring some, or take"):
        init(workspace, read(workspace.params), None, print)
    assert not workspace.base.exists()


def test_images_are_told_by_class() -> None:
    assert by_class(torch.tensor([0, 1, 1]), ("cat", "dog", "eel")) == "1 cat, 2 dog, 0 eel"
    many = tuple("abcdef")
    assert by_class(torch.arange(6), many) == "1 of each class"
    assert by_class(torch.tensor([0, 1, 2, 3, 3, 5]), many) == "from 0 of e to 2 of d"


def test_a_set_from_elsewhere_is_frozen_when_it_is_named(make_workspace: Callable[..., Path], tmp_path: Path) -> None:
    workspace = Workspace(make_workspace())
    init(workspace, read(workspace.params), None, print)
    frozen = workspace.splits.read_bytes()
    (tmp_path / "drawn" / "7").mkdir(parents=True)
    Image.new("L", (40, 30), 90).save(tmp_path / "drawn" / "7" / "one.png")
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("sets: {}", f"sets: {{drawn: '{tmp_path / 'drawn'}'}}"))
    params = read(workspace.params)
    with pytest.raises(WorkspaceError, match=r"evaluate\.sets\.drawn is not frozen yet; `dadc init` does it"):
        check_same(workspace, params)
    git(workspace, "commit", "--quiet", "--all", "--message", "a set from elsewhere")
    init(workspace, params, None, print)
    check_same(workspace, params)
    assert workspace.splits.read_bytes() == frozen, "round 000 hangs on it"
    assert git(workspace, "status", "--porcelain") == ""
    found = inputs.external_set(workspace, "drawn")
    assert (len(found), found.labels_N.tolist(), found.size) == (1, [7], 28)
    made = git(workspace, "rev-parse", "HEAD")
    (tmp_path / "drawn" / "7" / "one.png").unlink()  # a clone elsewhere has no such folder
    init(workspace, params, None, print)
    assert git(workspace, "rev-parse", "HEAD") == made
    workspace.other("drawn").write_bytes(b"another")
    with pytest.raises(ValueError, match="is not what was frozen: expected md5"):
        inputs.external_set(workspace, "drawn")


def test_a_set_under_a_shifts_name_is_refused(make_workspace: Callable[..., Path]) -> None:
    workspace = Workspace(make_workspace(evaluate={"sets": {"affine": "somewhere"}}))
    with pytest.raises(ParamsError, match="sets under names of their own, affine is a shift's or the mean's"):
        read(workspace.params)


@pytest.fixture(scope="module")
def of_photos(make_workspace: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace for photos of which two test images are training images."""
    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        for split, n in (("train", 14), ("test", 4)):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                picture = Image.fromarray(generator.integers(0, 255, (28, 28, 3), np.uint8))
                picture.save(root / split / name / f"{i}.png")
        shutil.copy(root / "train" / name / "3.png", root / "test" / name / "1.png")
    data = {"set": "folder", "root": str(root), "pool": 10, "validation": 4, "gate": 0, "limit": None}
    return Workspace(make_workspace(data=data, collect={"drawings": 2, "edits": 0}, attack={"count": 1}))


SHARED = "2 of 8 test images are training images too, first test/cat/1.png = train/cat/3.png"


def test_what_would_mislead_is_told_and_refused_by_strict(of_photos: Workspace) -> None:
    with pytest.raises(ValueError, match=f"{SHARED}(.|\n)*still called digits(.|\n)*--strict: nothing is frozen"):
        init(of_photos, read(of_photos.params), None, print, How(strict=True))
    assert not of_photos.base.exists()
    assert git(of_photos, "status", "--porcelain") == ""


def test_what_would_mislead_is_told_before_a_pool_that_is_too_small(of_photos: Workspace) -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match="the pool holds 4"):
        init(of_photos, changed(read(of_photos.params), pool=4), None, said.append)
    assert any(line.startswith(f"warning: {SHARED}") for line in said)


def test_a_dry_run_freezes_nothing_and_shows_the_images(of_photos: Workspace) -> None:
    said: list[str] = []
    init(of_photos, read(of_photos.params), None, said.append, How(dry=True))
    assert any(line.startswith(f"warning: {SHARED}") for line in said)
    assert not of_photos.base.exists()
    assert git(of_photos, "status", "--porcelain") == ""
    with Image.open(of_photos.local / "contact-sheet.png") as sheet:
        assert sheet.mode == "RGB"


def test_data_that_no_round_hangs_on_are_frozen_again(of_photos: Workspace) -> None:
    params = read(of_photos.params)
    said: list[str] = []
    init(of_photos, params, None, said.append)
    assert any(line.startswith(f"warning: {SHARED}") for line in said)
    before = read_splits(of_photos)
    with pytest.raises(WorkspaceError, match=r"data\.size: .* got 16; set it back"):
        init(of_photos, changed(params, size=16), None, print)
    init(of_photos, changed(params, size=16), None, print, How(again=True))
    after = read_splits(of_photos)
    assert (before["size"], after["size"]) == (28, 16)
    assert git(of_photos, "status", "--porcelain") == ""
    assert pointer_digest(pointer(of_photos.split("pool")).read_text()) == after["splits"]["pool"]["md5"]
    of_photos.round(0).folder.mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="--again is for a campaign without rounds, and round 000 hangs on"):
        init(of_photos, params, None, print, How(again=True))

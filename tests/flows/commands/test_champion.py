"""What one does with a champion: ask it, export it, go back to an earlier one. On a campaign of two closed rounds."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CHECKOUT, dadc, run
from fastapi.testclient import TestClient
from old_campaign import unpacked, with_the_code_of_now
from PIL import Image
from safetensors.torch import load_file

from data.layout import Round, Workspace
from data.shards import Images, to_image
from tasks.engine import inference
from tasks.engine.checkpoint import load
from tasks.promote import champion, promoted
from tasks.track import disagreements
from tasks.workspace.inputs import images
from tasks.workspace.rounds import closed
from tasks.workspace.services import find_services

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both of its rounds' challengers promoted, and logged in an MLflow of files."""
    root = with_the_code_of_now(unpacked(tmp_path_factory.mktemp("old")), tmp_path_factory.mktemp("now"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/.dadc/mlflow.db")
        dadc(root, "decide", "0", "--promote", "--why", "a start")
        dadc(root, "decide", "1", "--promote", "--why", "better")
    return root


@pytest.fixture(scope="module")
def test_images(campaign: Path) -> Images:
    return images(Workspace(campaign), "test")


@pytest.fixture(scope="module")
def exported(campaign: Path) -> tuple[Path, str]:
    """The folder, and what the command said."""
    return campaign / "taken", dadc(campaign, "export", "taken", "--torch").stdout


def the_champion(root: Path) -> Round:
    best = champion(closed(Workspace(root)))
    assert best is not None
    return best


def test_predict_answers_as_the_champion_does(campaign: Path, test_images: Images, tmp_path: Path) -> None:
    for index in range(6):
        (tmp_path / "folder" / str(index % 2)).mkdir(parents=True, exist_ok=True)
        to_image(test_images.pixels_NCHW[index]).save(tmp_path / "folder" / str(index % 2) / f"{index}.png")
    lines = dadc(campaign, "predict", str(tmp_path / "folder"), "--json").stdout.splitlines()
    answers = {Path(line["file"]).stem: line for line in map(json.loads, lines)}
    net, card = load(the_champion(campaign).challenger.model)
    answers_N, probabilities_NK = inference.answer(net, test_images.pixels_NCHW[:6])
    for index in range(6):
        assert answers[str(index)]["class"] == card.classes[answers_N[index]]
        assert list(answers[str(index)]["probabilities"].values()) == pytest.approx(probabilities_NK[index].tolist())


def test_predict_shows_where_the_network_looks(campaign: Path, test_images: Images, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        to_image(test_images.pixels_NCHW[0]).save(tmp_path / folder / "same.png")
    dadc(campaign, "predict", str(tmp_path / "a"), str(tmp_path / "b"), "--explain", str(tmp_path / "maps"))
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["same-2.png", "same.png"]
    sheet = np.asarray(Image.open(tmp_path / "maps" / "same.png")).astype(int)
    left, right = np.split(sheet, 2, axis=1)
    assert (left[..., 0] == left[..., 1]).all(), "the image itself is grey"
    assert (right[..., 0] > right[..., 1] + 20).any(), "red where it looks"


def test_predict_names_what_it_cannot_read_and_answers_the_rest(
    campaign: Path, test_images: Images, tmp_path: Path
) -> None:
    to_image(test_images.pixels_NCHW[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    said = dadc(campaign, "predict", str(tmp_path), check=False)
    bad, good = said.stdout.splitlines()
    assert said.returncode == 1
    assert "bad.png: not an image that can be read: it is none of PNG" in bad
    assert "good.png: " in good
    assert "%" in good
    nowhere = dadc(campaign, "predict", str(tmp_path / "nowhere"), check=False)
    assert "expected an image file or a folder" in nowhere.stderr


def test_every_exported_file_answers_as_torch_does_on_the_whole_test_split(
    exported: tuple[Path, str], test_images: Images
) -> None:
    folder, said = exported
    n = len(test_images)
    for name in ("model.onnx", "model.safetensors", "model.pt2"):
        assert f"{name}: the same class on all {n} test images" in said
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.safetensors", "model.pt2", "README.md"}


def test_the_onnx_file_needs_nothing_of_this_project(
    campaign: Path, exported: tuple[Path, str], test_images: Images
) -> None:
    session = onnxruntime.InferenceSession(exported[0] / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    net, card = load(the_champion(campaign).challenger.model)
    assert json.loads(metadata["classes"]) == list(card.classes)
    assert (metadata["round"], metadata["size"]) == (the_champion(campaign).name, str(card.size))
    pixels_NHWC = test_images.pixels_NCHW[:5].permute(0, 2, 3, 1).contiguous().numpy()
    (probabilities_NK,) = session.run(["probabilities"], {"pixels": pixels_NHWC})
    assert np.asarray(probabilities_NK) == pytest.approx(
        inference.answer(net, test_images.pixels_NCHW[:5])[1], abs=1e-5
    )


def test_the_readme_s_own_lines_run(exported: tuple[Path, str], test_images: Images, tmp_path: Path) -> None:
    """In an interpreter that sees none of this project's packages."""
    folder = Path(shutil.copytree(exported[0], tmp_path / "elsewhere"))
    to_image(test_images.pixels_NCHW[3]).save(folder / "photo.png")
    readme = (folder / "README.md").read_text()
    code = readme.split("```python")[1].split("```")[0]
    said = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True).stdout
    class_, probability = said.split()
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert class_ in classes
    assert 1 / len(classes) <= float(probability) <= 1
    assert "worst case of all attacks" in readme or "under pgd" in readme


def test_the_service_of_the_docs_answers(
    campaign: Path, exported: tuple[Path, str], test_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(exported[0], tmp_path / "champion")
    monkeypatch.chdir(tmp_path)
    code = (CHECKOUT / "docs" / "champion.md").read_text().split("```python")[1].split("```")[0]
    service = ModuleType("service")
    sys.modules["service"] = service  # FastAPI reads the handler's annotations out of its module
    try:
        exec(code, service.__dict__)
        buffer = io.BytesIO()
        to_image(test_images.pixels_NCHW[2]).save(buffer, "PNG")
        answer = TestClient(service.app).post("/classify", content=buffer.getvalue()).json()
    finally:
        del sys.modules["service"]
    net, card = load(the_champion(campaign).challenger.model)
    assert list(answer) == list(card.classes)
    assert list(answer.values()) == pytest.approx(
        inference.answer(net, test_images.pixels_NCHW[2:3])[1][0].tolist(), abs=1e-5
    )


def test_the_other_two_files_load_by_their_own_libraries(exported: tuple[Path, str], test_images: Images) -> None:
    folder, _ = exported
    assert load_file(folder / "model.safetensors")
    pixels_NHWC = test_images.pixels_NCHW[:7].permute(0, 2, 3, 1).contiguous()
    probabilities_NK = torch.export.load(folder / "model.pt2").module()(pixels_NHWC)
    assert probabilities_NK.sum(1).tolist() == pytest.approx([1.0] * 7)


def test_a_file_that_answers_otherwise_is_not_kept(
    campaign: Path, test_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.serving import export

    def wrong(path: Path) -> object:
        return lambda pixels_NHWC: np.full((len(pixels_NHWC), len(test_images.classes)), 0.5, dtype=np.float32)

    monkeypatch.setattr(export, "_onnx_runtime", wrong)
    with pytest.raises(ValueError, match=r"expected model\.onnx to answer as torch does"):
        export.export(the_champion(campaign).challenger.model, tmp_path, test_images, {}, torch_file=False)
    assert not (tmp_path / "model.onnx").exists()


def test_an_earlier_champion_comes_back(campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(campaign, tmp_path / "campaign", symlinks=True))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/.dadc/mlflow.db")
    assert the_champion(root).name == "001"
    dadc(root, "rollback", "0", "--why", "001 confuses 4 and 9")
    first, second = closed(Workspace(root))[:2]
    assert (promoted(first), promoted(second)) == (True, False)
    assert json.loads(second.decision.read_text())["why"] == "rolled back to round 000: 001 confuses 4 and 9"
    assert run(root, "git", "log", "-1", "--format=%s").stdout.strip() == "Roll back to round 000"
    assert disagreements(first, find_services(root), first) == []
    before = run(root, "git", "rev-parse", "HEAD").stdout
    dadc(root, "rollback", "0", "--why", "001 confuses 4 and 9")
    assert run(root, "git", "rev-parse", "HEAD").stdout == before, "the same rollback twice is one"
    refusals = {
        ("0", "another reason"): "round 000 is the champion already",
        ("1", "x"): "round 001's challenger was not promoted",
        ("2", "x"): "expected a closed round, round 002 is",
        ("0", " "): "a rollback needs a reason",
    }
    for (number, why), message in refusals.items():
        assert message in dadc(root, "rollback", number, "--why", why, check=False).stderr

"""Checkpoints: the same bytes for the same network, a word for every file that is not what it should be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tasks.engine.checkpoint import Card, load, save
from tasks.engine.inference import answer, evaluating, logits_of, microbatches, to_float

CARD = Card("nsl_cnn", ("0", "1", "ü"), 1, 12, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(tmp_path / "net.safetensors", CARD.build(), CARD)
    return tmp_path / "net.safetensors"


def rewrite(path: Path, card: object, **changed: torch.Tensor) -> None:
    """The same weights under another card, or with other tensors."""
    text = card if isinstance(card, str) else json.dumps(card)
    save_file({**load_file(path), **changed}, path, metadata={"dadc": text})


def fields(**changed: object) -> dict[str, object]:
    return {"model": "nsl_cnn", "classes": ["0", "1", "ü"], "channels": 1, "size": 12, "round": 2, **changed}


def test_the_same_network_gives_the_same_bytes(path: Path) -> None:
    first = path.read_bytes()
    net, card = load(path)
    for _ in range(3):
        save(path, net.to(memory_format=torch.channels_last), card)
        assert path.read_bytes() == first


def test_loading_draws_nothing(path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load(path)
    assert torch.equal(torch.rand(3), wanted)


def test_another_network_than_the_card_says_is_not_written(tmp_path: Path) -> None:
    wrapped = nn.ModuleDict({"net": CARD.build()})
    for net, word in (
        (wrapped, "is missing"),
        (Card("nsl_cnn", ("0", "1"), 1, 12, 0).build(), "expected as float32 3×64"),
    ):
        with pytest.raises(ValueError, match=rf"the card names nsl_cnn \(3 classes, 1×12×12\).*{word}"):
            save(tmp_path / "other.safetensors", net, CARD)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc pull"):
        load(tmp_path / "none.safetensors")


def test_a_broken_file_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-1], pickle.dumps({"weight": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no sound safetensors file"):
            load(path)


def test_a_file_of_another_tool_is_refused(path: Path) -> None:
    save_file(load_file(path), path)
    with pytest.raises(ValueError, match="without a card"):
        load(path)


@pytest.mark.parametrize(
    ("card", "word"),
    [
        ("{", "card that cannot be read"),
        ([], "card that cannot be read"),
        ({"model": "nsl_cnn"}, "card that cannot be read: classes"),
        (fields(size="12"), "card that cannot be read: size"),
        (fields(round=True), "card that cannot be read: round"),
        (fields(model="../attack"), r"a network '\.\./attack' that models/ does not have"),
        (fields(classes=["0", "1"]), r"says that it holds nsl_cnn \(2 classes.*expected as float32 2"),
        (fields(channels=3), "holds another network: 0.weight expected as float32 32×3×3×3, got float32 32×1×3×3"),
        (fields(model="space_cnn"), "holds another network"),
    ],
)
def test_a_wrong_card_is_refused(path: Path, card: object, word: str) -> None:
    rewrite(path, card)
    with pytest.raises(ValueError, match=word):
        load(path)


def test_a_tensor_of_another_type_is_refused(path: Path) -> None:
    rewrite(path, fields(), **{"0.bias": torch.zeros(32, dtype=torch.float64)})
    with pytest.raises(ValueError, match="0.bias expected as float32 32, got float64 32"):
        load(path)


def test_the_answer_is_that_of_fp32_and_eval_mode_in_any_batch() -> None:
    torch.manual_seed(0)
    net = Card("space_cnn", CARD.classes, 3, 16, 0).build().train()
    pixels = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    classes, probabilities = answer(net, pixels, batch=3)
    assert net.training
    assert all(module.training for module in net.modules())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(answer(net, pixels)[1], probabilities, atol=1e-6)
    net.eval()
    with torch.no_grad():
        wanted = net(pixels.float() / 255).softmax(1)
    assert torch.allclose(probabilities, wanted, atol=1e-6)
    assert torch.equal(classes, wanted.argmax(1))
    none, nothing = answer(net, pixels[:0])
    assert none.shape == (0,)
    assert none.dtype == torch.int64
    assert nothing.shape == (0, 3)


def test_a_network_that_is_not_fp32_is_not_reported() -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"fp32|dtype|type"):
        logits_of(CARD.build().bfloat16(), torch.rand(1, 1, 12, 12))


def test_a_batch_is_gone_through_in_parts_but_where_batch_norm_sees_it_whole() -> None:
    plain, normed = nn.Conv2d(1, 2, 3), nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    images = torch.rand(150, 1, 8, 8)
    assert torch.equal(torch.cat([images[part] for part in microbatches(plain, images)]), images)
    assert [len(images[part]) for part in microbatches(plain, images)] == [64, 64, 22]
    assert [len(images[part]) for part in microbatches(normed.train(), images)] == [150]
    assert len(microbatches(normed.eval(), images)) == 3
    assert len(microbatches(plain, images.to("meta"))) == 1
    assert [len(images[:0][part]) for part in microbatches(plain, images[:0])] == [0]


def test_pixels_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 pixels, got torch\.float32"):
        to_float(torch.rand(1, 1, 12, 12))
    with pytest.raises(ValueError, match=r"expected pixels of shape N×C×H×W, got \(1, 12, 12\)"):
        answer(CARD.build(), torch.zeros(1, 12, 12, dtype=torch.uint8))
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])


def test_every_module_keeps_the_mode_it_had() -> None:
    net = CARD.build().train()
    net[0].eval()
    before = [module.training for module in net.modules()]
    with pytest.raises(KeyError), evaluating(net):
        raise KeyError(*(module for module in net.modules() if module.training))
    assert [module.training for module in net.modules()] == before

"""The attack stage, for real, in a workspace of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.layout import CHALLENGER, Round, Workspace
from data.shards import decode_png, read_candidates
from tasks.attack import attack, candidates, rounded, towards
from tasks.config.kinds import module_of
from tasks.config.params import Threat, read
from tasks.config.seeds import derive
from tasks.engine import checkpoint, inference, stage
from tasks.prepare import freeze_data
from tasks.record.pool import seed_images
from tasks.workspace import inputs
from tasks.workspace.checkout import image_spec
from tasks.workspace.rounds import write_index

COUNT = 5


@pytest.fixture
def opened(make_workspace: Callable[..., Path]) -> Round:
    """Round 001 with an untrained target: attacks and answers are real, its accuracy does not matter."""
    kinds = {"fgsm": {}, "pgd": {"steps": 4, "restarts": 1}}
    workspace = Workspace(make_workspace(attack={"count": COUNT, "kinds": kinds}, data={"size": 20}))
    params = read(workspace.params)
    freeze_data(workspace, params, print)
    target, round_ = workspace.round(0), workspace.round(1)
    for each in (target, round_):
        each.folder.mkdir(parents=True)
        shutil.copyfile(workspace.params, each.params)
    base = image_spec(workspace)
    with stage.reproducible(params, "target"):
        net = module_of("models", params.model.name, "model.name").build(len(base.classes), base.channels, base.size)
    checkpoint.save(
        target.challenger.model, net, checkpoint.Card(params.model.name, base.classes, base.channels, base.size, 0)
    )
    write_index(round_, "collected", {"target": "data/rounds/000/model.safetensors"})
    return round_


def test_every_candidate_is_written_judged_and_within_the_threat_model(opened: Round) -> None:
    stage.run("attack", stage.of_round(attack), opened.challenger)
    params, pool = read(opened.params), inputs.images(opened.workspace, "pool")
    made = read_candidates(opened.attack)
    assert sorted(c.source for c in made) == ["fgsm"] * COUNT + ["pgd"] * COUNT
    net, _ = checkpoint.load(opened.workspace.round(0).challenger.model)
    seeds = dict(zip(pool.keys, pool.pixels_NCHW, strict=True))
    labels = dict(zip(pool.keys, pool.labels_N.tolist(), strict=True))
    moved = 0
    for c in made:
        pixels = decode_png(c.image, pool.channels)
        away = (pixels.int() - seeds[c.seed_image].int()).abs().max().item()
        assert away <= params.threat.epsilon * 255 + 1e-3
        moved += away > 0
        answers_N, probabilities_NK = inference.answer(net, pixels[None])
        assert (c.answer, c.intended) == (answers_N.item(), labels[c.seed_image])
        assert c.probability == pytest.approx(probabilities_NK.max().item(), abs=1e-6)
        assert not c.by_people
        assert c.judged
    assert moved == len(made)
    chosen = seed_images(1, params, len(pool))
    assert {c.seed_image for c in made if c.source == "pgd"} == {pool.keys[i] for i in chosen.attacks["pgd"]}
    assert not {c.seed_image for c in made} & {pool.keys[i] for i in chosen.drawings}


def test_the_command_makes_the_same_bytes_again(opened: Round) -> None:
    stage.run("attack", stage.of_round(attack), opened.challenger)
    before = opened.attack.read_bytes()
    opened.attack.unlink()
    command = [sys.executable, "-m", "tasks.attack", "001"]
    done = subprocess.run(command, cwd=opened.workspace.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{2 * COUNT} machine candidates" in done.stdout
    assert opened.attack.read_bytes() == before


def test_targeted_candidates_are_answered_with_the_class_drawn_for_them(opened: Round) -> None:
    opened.params.write_text(opened.params.read_text().replace("targeted: false", "targeted: true"))
    params, pool = read(opened.params), inputs.images(opened.workspace, "pool")
    assert params.attack.targeted
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pool.pixels_NCHW[0].numel(), len(pool.classes)))
    wide = Threat(norm="linf", epsilon=0.5)
    params = params.model_copy(update={"threat": wide})
    found = candidates(net.eval(), pool, "pgd", opened, params)
    wanted = towards(pool.labels_N, len(pool.classes), derive(derive(params.seed, "attack", "001", "pgd"), "targets"))
    assert (wanted != pool.labels_N).all()
    assert len(wanted.unique()) == len(pool.classes)
    hits = [c.answer == target for c, target in zip(found, wanted.tolist(), strict=True)]
    assert sum(hits) > 0.9 * len(hits)


def test_a_network_for_other_images_is_an_error(opened: Round) -> None:
    card = checkpoint.Card("nsl_cnn", tuple(map(str, range(10))), 3, 20, 0)
    checkpoint.save(opened.workspace.round(0).challenger.model, card.build(), card)
    with pytest.raises(ValueError, match=r"the model takes images of 3×20×20 .*, the pool has 1×20×20; data\.channels"):
        stage.run("attack", stage.of_round(attack), opened.challenger)


def test_a_round_that_was_not_opened_is_an_error(opened: Round) -> None:
    opened.workspace.index.write_text('{"rounds": {}, "collected": {}}')
    with pytest.raises(ValueError, match="must name the target of round 001; `dadc open`"):
        stage.run("attack", stage.of_round(attack), opened.challenger)
    assert not opened.attack.exists()


def test_another_pool_than_the_frozen_one_is_an_error(opened: Round) -> None:
    shutil.copyfile(opened.workspace.split("validation"), opened.workspace.split("pool"))
    with pytest.raises(ValueError, match="is not what was frozen: expected md5"):
        stage.run("attack", stage.of_round(attack), opened.challenger)


@pytest.mark.parametrize(("epsilon", "levels"), [(0.1, 25), (8 / 255, 8), (0.03137, 8), (0.003, 0)])
def test_rounding_stays_in_the_ball_and_in_the_picture(epsilon: float, levels: int) -> None:
    seeds = torch.tensor([0, 100, 250, 255], dtype=torch.uint8).reshape(1, 1, 2, 2)
    threat, floats = Threat(norm="linf", epsilon=epsilon), inference.to_float(seeds)
    up, down = (rounded((floats + sign * epsilon).clamp(0, 1), floats, threat).int() for sign in (1, -1))
    assert up.flatten().tolist() == [min(255, value + levels) for value in (0, 100, 250, 255)]
    assert down.flatten().tolist() == [max(0, value - levels) for value in (0, 100, 250, 255)]


def test_rounding_stays_within_a_length_too() -> None:
    torch.manual_seed(0)
    seeds = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    floats, change = inference.to_float(seeds), torch.randn(50, 3, 8, 8)
    for epsilon in (0.05, 0.5, 2.0):
        moved = floats + change * (epsilon / change.flatten(1).norm(dim=1))[:, None, None, None]
        found = inference.to_float(rounded(moved.clamp(0, 1), floats, Threat(norm="l2", epsilon=epsilon)))
        length = (found - floats).flatten(1).norm(dim=1)
        assert length.max() <= epsilon + 1e-5
        assert epsilon < 0.1 or length.min() > 0.5 * epsilon


def test_an_attack_with_a_budget_of_its_own_is_only_rounded() -> None:
    floats = torch.full((1, 1, 1, 2), 0.5)
    assert rounded(torch.tensor([[[[0.0, 0.999]]]]), floats, None).flatten().tolist() == [0, 255]


@pytest.mark.parametrize("arguments", [[], ["1"], ["001", "002"], ["abc"], ["001", "--arm", "reference"]])
def test_a_wrong_argument_says_what_is_wanted(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        stage.main("attack", stage.of_round(attack), arguments, arms=(CHALLENGER,))
    assert stopped.value.code == 2
    assert "three digits such as 001" in capsys.readouterr().err


def test_a_fault_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        stage.main("attack", stage.of_round(attack), ["001"])
    assert stopped.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1

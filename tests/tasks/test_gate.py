"""The gate stage on a small campaign: what it answers, what follows from it, and what it warns of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from round_states import begin, mark_closed

from data.layout import REFERENCE, Round, Workspace
from data.records import Candidate, Verdict
from data.shards import Images, candidate_images, encode_png, read_candidates
from tasks.config.params import read
from tasks.engine import checkpoint, inference, networks, stage
from tasks.evaluation import gate_answers
from tasks.evaluation.predictions import read as read_answers
from tasks.freeze import freeze
from tasks.gate import gate
from tasks.prepare import freeze_data
from tasks.promote import promoted, unsound
from tasks.workspace import inputs

SECTIONS = {
    "data": {"size": 20, "limit": 700, "gate": 80},
    "threat": {"epsilon": 0.02},
    "evaluate": {"attacks": {"pgd": {"steps": 3}}, "battery": {}},
    "promote": {"reference": True, "undecided": "keep"},
}


def learned(base: Images, seed: int, epochs: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = networks.build("nsl_cnn", len(base.classes), base.channels, base.size)
    pixels_NCHW, optimizer = inference.to_float(base.pixels_NCHW), torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(base)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(pixels_NCHW[index]), base.labels_N[index]).backward()
            optimizer.step()
    return net.eval()


def put(path: Path, net: torch.nn.Module, base: Images, number: int) -> None:
    path.parent.mkdir(exist_ok=True)
    checkpoint.save(path, net, checkpoint.Card("nsl_cnn", base.classes, base.channels, base.size, number))


def judged(round_: Round) -> dict[str, object]:
    stage.run("gate", stage.of_round(gate), round_.challenger)
    content: dict[str, object] = json.loads(round_.gate.read_text())
    return content


@pytest.fixture(scope="module")
def campaign(make_workspace: Callable[..., Path]) -> tuple[Round, Round]:
    """Round 000 judged and closed; round 001 frozen, its reference trained, the target's own weights its challenger."""
    workspace = Workspace(make_workspace(**SECTIONS))
    params = read(workspace.params)
    freeze_data(workspace, params, print)
    base = inputs.images(workspace, "train")
    first = begin(workspace, 0)
    freeze(first, [], params, None)
    put(first.challenger.model, learned(base, 0, 3), base, 0)
    judged(first)
    first.challenger.metrics.write_text("{}")
    mark_closed(first)

    second = begin(workspace, 1)
    pool, people = inputs.images(workspace, "pool"), []
    answers_N, _ = inference.answer(checkpoint.load(first.challenger.model)[0], pool.pixels_NCHW.flip(2))
    for i in (answers_N != pool.labels_N).nonzero()[:40, 0].tolist():
        people.append(
            Candidate(
                f"001/p/{pool.keys[i]}",
                1,
                "simulated",
                encode_png(pool.pixels_NCHW[i].flip(1)),
                int(pool.labels_N[i]),
                annotator=f"{i % 10}@x",
                answer=int(answers_N[i]),
                verdict=Verdict.VERIFIED,
            )
        )
    freeze(second, people, params, first, [first])
    shutil.copyfile(first.challenger.model, second.challenger.model)
    put(second.arm(REFERENCE).model, learned(base, 1, 3), base, 1)
    judged(second)
    return first, second


def test_the_first_network_is_champion_and_has_learned_the_classes(campaign: tuple[Round, Round]) -> None:
    first, _ = campaign
    verdict = json.loads(first.gate.read_text())
    assert (verdict["promoted"], verdict["champion"], verdict["sound"]["fault"]) == (True, 0, "")
    assert promoted(first)
    assert unsound(first) == ""
    assert len(inputs.images(first.workspace, "gate")) == 80
    assert {part.images for part in read_answers(first.gate_answers)} == {"gate"}


def test_the_targets_own_weights_gain_nothing_over_it(campaign: tuple[Round, Round]) -> None:
    _, second = campaign
    verdict = json.loads(second.gate.read_text())
    assert (verdict["promoted"], verdict["champion"]) == (False, 0)
    assert set(verdict["target"]) == {"clean", "robust", "ood"}, "its own fools are not compared with the target"
    assert {each["difference"] for each in verdict["target"].values()} == {0}
    fools = [c for c in read_candidates(second.candidates) if c.split == "validation"]
    reference = verdict["reference"]["fools"]
    assert (reference["n"], reference["clusters"]) == (len(fools), len({c.annotator for c in fools}))
    assert reference["after"] == 0, "they fooled these weights"
    net = checkpoint.load(second.arm(REFERENCE).model)[0]
    images = candidate_images(fools, 1, inputs.images(second.workspace, "gate").classes)
    answers_N, _ = inference.answer(net, images.pixels_NCHW)
    assert reference["before"] == (answers_N == images.labels_N).double().mean().item()
    assert not promoted(second)


def test_the_verdict_follows_from_the_record_and_is_made_again_to_the_byte(campaign: tuple[Round, Round]) -> None:
    _, second = campaign
    parts, shard = read_answers(second.gate_answers), read_candidates(second.candidates)
    assert {part.net for part in parts} == {"challenger", "target", "reference"}
    told = json.loads(second.gate.read_text())
    found = gate_answers.judged(parts, shard, 1, gate_answers.past(second), read(second.params))
    assert json.loads(json.dumps(found)) == told
    made = [path.read_bytes() for path in (second.gate, second.gate_answers)]
    judged(second)
    assert [path.read_bytes() for path in (second.gate, second.gate_answers)] == made


def test_a_network_of_one_answer_is_named_and_not_promoted(
    campaign: tuple[Round, Round], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(campaign[0].workspace.root, tmp_path / "workspace", symlinks=True))
    second = Workspace(root).round(1)
    net, card = checkpoint.load(second.challenger.model)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    checkpoint.save(second.challenger.model, net, card)
    verdict = judged(second)
    assert (verdict["verdict"], verdict["promoted"]) == ("worse", False)
    assert "warning: the network answers one class to all of 80 images" in capsys.readouterr().out
    assert "more train.epochs" in unsound(second)

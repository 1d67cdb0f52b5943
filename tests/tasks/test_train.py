"""The train stage, for real, on a few hundred digits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import frozen
from torch import nn

from data.layout import Round
from data.records import Candidate, Verdict
from data.shards import Images, encode_png, write_candidates
from tasks.config.kinds import kind
from tasks.config.params import Awp, Loss, Params, TrainCandidates, read
from tasks.engine import checkpoint, networks, stage, train_state
from tasks.freeze import freeze
from tasks.train import QUICK, _backward, _why_stop, batches, fit, quick, rate, train, training_set
from tasks.workspace import inputs

CHOICES = TrainCandidates(weight=0.5, repeat=3, non_fooling=False)
PLAIN = Loss(name="plain", params={})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(n: int, size: int = 8) -> Images:
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 128, (n, 1, size, size), generator=torch.Generator().manual_seed(1))
    pixels = (noise + 60 * labels.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return Images(pixels, labels, tuple(f"k{i}" for i in range(n)), ("a", "b"))


def candidate(key: str, **changes: object) -> Candidate:
    """A verified fooling candidate of class 1 in the train split."""
    blob = encode_png(torch.full((1, 8, 8), 7, dtype=torch.uint8))
    made = Candidate(key, 1, "simulated", blob, 1, answer=0, verdict=Verdict.VERIFIED, split="train")
    return replace(made, **changes)  # type: ignore[arg-type]


CANDIDATES = [
    candidate("yes"),
    candidate("pending", verdict=Verdict.PENDING),
    candidate("rejected", verdict=Verdict.REJECTED),
    candidate("harmless", answer=1),
    candidate("test", split="test"),
    candidate("validation", split="validation"),
]


def test_only_verified_fooling_candidates_of_the_train_split_are_trained_on() -> None:
    made = training_set(images(4), CANDIDATES, CHOICES)
    assert len(made.labels) == 5
    assert made.labels[4] == 1
    assert (made.pixels(torch.tensor([4, 0]))[0] == 7).all()
    assert torch.equal(made.pixels(torch.tensor([4, 2, 0]))[1:], images(4).pixels_NCHW[[2, 0]])
    assert made.weights.tolist() == [1, 1, 1, 1, 0.5]
    assert made.order.tolist() == [0, 1, 2, 3, 4, 4, 4]


def test_non_fooling_ones_train_when_asked() -> None:
    made = training_set(images(4), CANDIDATES, CHOICES.model_copy(update={"non_fooling": True}))
    assert len(made.labels) == 6


def test_weight_zero_leaves_the_base_split() -> None:
    assert len(training_set(images(4), CANDIDATES, CHOICES.model_copy(update={"weight": 0.0})).order) == 4


def test_candidates_of_another_size_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"images of \(1, 16, 16\)"):
        training_set(images(4, size=16), CANDIDATES, CHOICES)


@pytest.fixture
def closing(make_workspace: Callable[..., Path]) -> Callable[..., Round]:
    """Round 000, frozen and ready to be trained; keyword arguments change sections of params.yaml."""

    def make(**changes: object) -> Round:
        return frozen(make_workspace(data={"size": 20}, **changes))

    return make


def test_it_learns_keeps_the_best_epoch_and_makes_the_same_bytes_again(closing: Callable[..., Round]) -> None:
    round_ = closing(train={"epochs": 4, "batch": 16})
    stage.run("train", train, round_)
    weights, history = round_.trained.read_bytes(), round_.history.read_bytes()
    told = json.loads(history)
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2, 3, 4]
    assert told["loss"] == "plain", "round 000 trains with first.loss"
    kept = told["epochs"][told["kept"] - 1]
    assert kept == max(told["epochs"], key=lambda epoch: (epoch["robust"] + epoch["clean"], epoch["robust"]))
    assert told["epochs"][-1]["clean"] > 0.6
    assert told["epochs"][-1]["loss"] < told["epochs"][0]["loss"]

    params, validation = read(round_.params), inputs.images(round_.workspace, "validation")
    net, card = checkpoint.load(round_.trained)
    few = torch.randperm(len(validation), generator=stage.generator(params, "train", "quick"))[:QUICK]
    assert quick(net, validation, few, params) == (kept["clean"], kept["robust"])
    assert (card.round, card.model, card.classes) == (0, "nsl_cnn", validation.classes)

    stage.run("train", train, round_)
    assert round_.trained.read_bytes() == weights
    assert round_.history.read_bytes() == history


def test_going_on_from_the_target(closing: Callable[..., Round]) -> None:
    """With next to no learning rate the target's weights come out, and another network is refused."""
    first = closing(train={"epochs": 1, "init": "target", "optimizer": "sgd", "learning_rate": 1e-12})
    stage.run("train", train, first)
    shutil.copyfile(first.trained, first.model)
    second = first.workspace.round(1)
    second.folder.mkdir()
    shutil.copyfile(first.params, second.params)
    params = read(second.params)
    freeze(second, [], params, first)
    stage.run("train", train, second)
    (before, _), (after, card) = checkpoint.load(first.model), checkpoint.load(second.trained)
    for name, weight in before.state_dict().items():
        assert torch.allclose(weight, after.state_dict()[name], atol=1e-6)
    assert card.round == 1

    second.params.write_text(second.params.read_text().replace("name: nsl_cnn", "name: space_cnn"))
    with pytest.raises(ValueError, match=r"set train\.init to scratch"):
        stage.run("train", train, second)


def test_a_shard_that_was_changed_is_an_error(closing: Callable[..., Round]) -> None:
    round_ = closing()
    write_candidates(round_.candidates, [candidate("late")])
    with pytest.raises(ValueError, match=r"candidates.parquet is not what was frozen: wanted md5"):
        stage.run("train", train, round_)
    assert not round_.trained.exists()


def small(**changes: object) -> Params:
    params = read(Path(__file__).parents[2] / "params.yaml")
    given = {"epochs": 2, "batch": 8, **changes}
    return params.model_copy(update={"train": params.train.model_copy(update=given)})


def fit_small(net: nn.Module, params: Params, n: int = 9) -> dict[str, object]:
    with stage.reproducible(params, "test"):
        return fit(net, training_set(images(n), [], CHOICES), images(8), params, PLAIN, "000")[1]


def test_divergence_is_an_error_that_says_what_to_do() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"diverged; .*lower train\.learning_rate \(now 1e\+30\) .* `dadc amend`"):
        fit_small(net, small(optimizer="sgd", learning_rate=1e30, epochs=3))


def test_weights_that_are_no_numbers_are_divergence_though_the_loss_was_one() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    net[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(ValueError, match=r"^1.weight of the network are not finite in epoch 1: training has diverged"):
        fit_small(net, small(epochs=1, batch=9))


def test_no_batch_of_one_image_is_left_over() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert len(fit_small(net, small())["epochs"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "choice",
    [
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"precision": "bf16"},
        {"augment": {"gaussian_noise": {}}},
        {"awp": Awp(gamma=0.01)},
    ],
)
def test_sgd_bf16_augmentation_and_awp_learn(choice: dict[str, object]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    epochs = fit_small(net, small(epochs=20, **choice), n=32)["epochs"]
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]  # type: ignore[index]
    assert all(weight.dtype == torch.float32 for weight in net.parameters())


@pytest.mark.parametrize("name", ["plain", "nsl"])
@pytest.mark.parametrize("model", ["nsl_cnn", "resnet18"])
def test_a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole(name: str, model: str) -> None:
    torch.manual_seed(0)
    net = networks.build(model, 3, 1, 12).train()
    batch = (torch.rand(150, 1, 12, 12), torch.randint(0, 3, (150,)), torch.rand(150) + 0.1)
    module, own = kind("losses", name, {}, "train.loss.params")
    params, noise = small(), torch.Generator()
    value = _backward(net, batch, module, own, params, noise)
    found = [weight.grad.clone() for weight in net.parameters()]
    net.zero_grad()
    wanted = module.loss(net, *batch, own, params.threat, noise)
    wanted.backward()
    assert value == pytest.approx(wanted.item(), rel=1e-5)
    for weight, gradient in zip(net.parameters(), found, strict=True):
        assert torch.allclose(gradient, weight.grad, atol=1e-5 * float(weight.grad.abs().max()) + 1e-7)


def history(*robust: float) -> list[dict[str, float]]:
    return [{"robust": each, "clean": 0.5 + i / 100} for i, each in enumerate(robust)]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("constant", {0.0: 1, 0.5: 1, 0.99: 1}),
        ("cosine", {0.0: 1, 1 / 3: 0.75, 0.5: 0.5, 1.0: 0}),
        ("one_cycle", {0.0: 0, 0.2: 0.5, 0.4: 1, 0.7: 0.5, 1.0: 0}),
        ("step", {0.0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01}),
    ],
)
def test_the_learning_rate_follows_the_schedule(schedule: str, shares: dict[float, float]) -> None:
    for share, wanted in shares.items():
        assert rate(schedule, share) == pytest.approx(wanted, abs=1e-9)


def test_a_schedule_changes_the_training() -> None:
    losses = {}
    for schedule in ("constant", "step"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        losses[schedule] = [each["loss"] for each in fit_small(net, small(epochs=4, schedule=schedule), n=32)["epochs"]]  # type: ignore[attr-defined]
    assert losses["constant"][:2] == losses["step"][:2]
    assert losses["constant"][3] < losses["step"][3], "a tenth of the rate learns less"


def test_patience_counts_epochs_without_a_higher_robust_accuracy() -> None:
    assert _why_stop(history(0.5, 0.4, 0.5), 3, 0.1, defended=True) == ""
    said = _why_stop(history(0.5, 0.4, 0.5, 0.45), 3, 0.1, defended=True)
    assert said == "PGD accuracy on validation has not risen over 50.0% for 3 epochs (train.patience)"
    assert _why_stop(history(0.0, 0.0, 0.0, 0.0), 3, 0.1, defended=False) == "", "clean accuracy rises"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    told = fit_small(net, small(epochs=9, patience=2, optimizer="sgd", learning_rate=1e-12))
    assert len(told["epochs"]) == 3  # type: ignore[arg-type]
    assert "has not risen" in told["stopped"]  # type: ignore[operator]


def test_batches_are_even_and_fit_for_batch_norm() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    normed = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))
    assert batches(9, 8, 1, plain) == 2
    assert batches(3, 2, 1, plain) == 2
    assert batches(3, 2, 1, normed) == 1, "two and one would leave a batch of one image"
    assert batches(9, 1, 1, plain) == 9
    with pytest.raises(ValueError, match=r"train\.batch must be at least 2 .*: its batch norm .* got 1 .*`dadc amend`"):
        batches(9, 1, 1, normed)
    with pytest.raises(ValueError, match="at least 4 for this network in 2 processes: its batch norm .*, got 3"):
        batches(9, 3, 2, normed)
    with pytest.raises(ValueError, match="at least 2"):
        fit_small(normed, small(batch=1))


def test_one_answer_to_every_image_is_not_kept_before_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two classes it is right half the time, under attack too: as much together as a plain loss ever reaches."""
    reached = iter([(0.5, 0.5), (0.75, 0.3), (0.98, 0.0), (0.97, 0.02)])
    monkeypatch.setattr("tasks.train.quick", lambda *given: next(reached))
    torch.manual_seed(0)
    assert fit_small(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), small(epochs=4))["kept"] == 3


class Killed(BaseException):
    """Ends a training where it stands."""


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """With dropout, augmentation and PGD, so that every generator is drawn from."""
    params = small(epochs=4, optimizer=optimizer, schedule="cosine", augment={"gaussian_noise": {}})
    loss = Loss(name="pgd_at", params={"steps": 2})
    training, validation = training_set(images(20), [], CHOICES), images(8)

    def once(store: train_state.Store | None) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        with stage.reproducible(params, "test"):
            layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 2)
            net, told = fit(nn.Sequential(*layers), training, validation, params, loss, "001", store=store)
        return net.state_dict(), told

    wanted, history = once(None)
    store = train_state.Store(tmp_path / "x.safetensors", "this one")
    write = train_state.Store.write

    def killed_after_two(self: train_state.Store, told: dict[str, object], tensors: dict[str, torch.Tensor]) -> None:
        write(self, told, tensors)
        if len(told["epochs"]) == 2:  # type: ignore[arg-type]
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(train_state.Store, "write", killed_after_two)
        with pytest.raises(Killed):
            once(store)
    found, told = once(store)
    assert told == history
    assert all(torch.equal(found[name], value) for name, value in wanted.items())

    other = train_state.Store(store.path, "another")
    assert other.read() is None
    store.path.write_bytes(store.path.read_bytes()[:-9])
    assert store.read() is None


def test_a_killed_training_ends_with_the_bytes_of_an_unharmed_one(
    closing: Callable[..., Round], capfd: pytest.CaptureFixture[str]
) -> None:
    round_ = closing(train={"epochs": 6, "batch": 16})
    stage.run("train", train, round_)
    wanted = round_.trained.read_bytes(), round_.history.read_bytes()
    kept = train_state.store(round_, "train").path
    assert not kept.exists(), "it goes away at the end"
    round_.trained.unlink()
    round_.history.unlink()

    command = [sys.executable, "-m", "tasks.train", round_.name]
    process = subprocess.Popen(command, cwd=round_.workspace.root, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert kept.exists()
    assert not round_.trained.exists(), "it was killed under way"
    stage.run("train", train, round_)
    assert "goes on after epoch" in capfd.readouterr().out
    assert (round_.trained.read_bytes(), round_.history.read_bytes()) == wanted
    assert not kept.exists()


def test_a_fall_of_pgd_accuracy_ends_the_training_and_the_best_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of one step at a high rate loses what it had; here the fall that counts is set to none at all."""
    assert _why_stop(history(0.1, 0.5, 0.36), None, 0.1, defended=True) == ""
    assert _why_stop(history(0.1, 0.5, 0.34), None, 0.1, defended=False) == ""
    assert _why_stop(history(0.5, 0.34), None, 0.5, defended=True) == "", "it began with one answer to every image"
    assert "fell from 50.0% to 34.0%" in _why_stop(history(0.1, 0.5, 0.34), None, 0.1, defended=True)
    monkeypatch.setattr("tasks.train.FALL", -1.0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    params = small(epochs=5)
    with stage.reproducible(params, "test"):
        loss = Loss(name="pgd_at", params={"steps": 2})
        told = fit(net, training_set(images(9), [], CHOICES), images(8), params, loss, "001")[1]
    assert len(told["epochs"]) == 1
    assert told["kept"] == 1
    assert "PGD accuracy on validation fell" in told["stopped"]
    assert "stopped" not in fit_small(net, params), "a plain loss promises nothing under attack"

"""Fine-tuning some parameters, with batch norm's statistics frozen or following."""

from __future__ import annotations

import pytest
import torch
from small_networks import blobs, given, network, state
from torch.nn import functional

from tasks.adaptation.fine_tuning import batches, fine_tuned, steps_of_tuning
from tasks.engine import inference
from tasks.rift import place


def test_fine_tuning_lowers_the_loss_by_one_weight_only() -> None:
    net, images = network(), blobs(64)
    before = state(net)
    tuned = fine_tuned(net, ["5.weight"], images, given(steps_of_tuning=20, learning_rate=0.01, batch=16))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.training
    inputs = inference.to_float(images.pixels_NCHW)
    with torch.no_grad():
        start = functional.cross_entropy(net(inputs), images.labels_N)
        place(net, tuned, 1.0)
        end = functional.cross_entropy(net(inputs), images.labels_N)
    assert end < 0.8 * start
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    assert changed == ["5.weight"]
    assert all(weight.grad is None for weight in net.parameters())


def test_fine_tuning_augments_as_training_does() -> None:
    net, params = network(), given()
    flips = params.model_copy(update={"train": params.train.model_copy(update={"augment": {"flip": {}}})})
    plain, once, twice = (fine_tuned(net, ["5.weight"], blobs(64), each)["5.weight"] for each in (params, flips, flips))
    assert torch.equal(once, twice)
    assert not torch.allclose(plain, once)


def test_a_rate_too_high_is_an_error_and_leaves_the_network() -> None:
    net = network()
    before = state(net)
    with pytest.raises(ValueError, match=r"lower rift\.learning_rate"):
        fine_tuned(net, ["0.weight"], blobs(32), given(learning_rate=1e38, steps_of_tuning=20, batch=8))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_budget_is_in_steps_and_every_image_is_seen_before_one_is_seen_again() -> None:
    params = given(steps_of_tuning=7)
    seen = list(batches(10, 4, steps_of_tuning(10, params.rift), params))
    assert len(seen) == 7
    for epoch in (seen[:3], seen[3:6]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    earlier = given(steps_of_tuning=None, epochs=2, batch=4).rift
    assert steps_of_tuning(10, earlier) == 6, "a round opened before counts in epochs"


def test_the_rate_falls_to_a_tenth_at_half_of_the_steps() -> None:
    """With all images in a batch and nothing but weight decay at work, each step shrinks the weight by its rate."""
    net, images = network(), blobs(64)
    with torch.no_grad():
        net[5].bias.zero_()  # every logit is 0, and each class has as many images: only the decay moves the weight
        net[5].weight.zero_()
    few = given(steps_of_tuning=2, learning_rate=0.1, batch=64)
    many = given(steps_of_tuning=3, learning_rate=0.1, batch=64)
    one = given(steps_of_tuning=1, learning_rate=0.1, batch=64)
    first, second, third = (
        fine_tuned(net, ["5.weight"], images, each)["5.weight"].norm().item() for each in (one, few, many)
    )
    assert second - first < 0.3 * first, "the second of two steps is a small one"
    assert third - first > first, "the second of three is not"


def test_statistics_follow_where_asked_and_counters_never_do() -> None:
    net, images = network(), blobs(64)
    before = state(net)
    frozen = fine_tuned(net, ["5.weight"], images, given(batch=16))
    assert frozen.keys() == {"5.weight"}
    tuned = fine_tuned(net, ["5.weight"], images, given(batch=16, statistics="follow"))
    assert tuned.keys() == {"5.weight", "1.running_mean", "1.running_var"}
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.training
    place(net, tuned, 0.5)
    half = (before["1.running_mean"] + tuned["1.running_mean"]) / 2
    assert torch.allclose(net.state_dict()["1.running_mean"], half)
    assert net.state_dict()["1.num_batches_tracked"] == before["1.num_batches_tracked"]


def test_statistics_alone_move_to_those_of_the_images() -> None:
    net, images = network(), blobs(64)
    tuned = fine_tuned(net, [], images, given(steps_of_tuning=200, batch=64, statistics="follow"))
    assert tuned.keys() == {"1.running_mean", "1.running_var"}
    with torch.no_grad():
        maps = net[0](inference.to_float(images.pixels_NCHW))
    assert torch.allclose(tuned["1.running_mean"], maps.mean((0, 2, 3)), atol=1e-4)
    with pytest.raises(ValueError, match="nothing to fine-tune"):
        fine_tuned(net, [], images, given())

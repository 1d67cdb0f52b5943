"""torchvision's networks by name: the published sizes, and small images that keep their size in the stem."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import densenet121, efficientnet_b0, mobilenet_v2, resnext50

PUBLISHED = [  # weights with ImageNet's 1,000 classes; the layer whose output is the last map
    (mobilenet_v2, 3_504_872, "features"),
    (resnext50, 25_028_904, "layer4"),
    (densenet121, 7_978_856, "features"),
    (efficientnet_b0, 5_288_548, "features"),
]


@pytest.mark.parametrize(("module", "published", "last"), PUBLISHED)
def test_weights_are_as_many_as_published(module: object, published: int, last: str) -> None:
    with torch.device("meta"):
        net = module.build(1000, 3, 224)  # type: ignore[attr-defined]
    assert sum(p.numel() for p in net.parameters()) == published


@pytest.mark.parametrize(("module", "published", "last"), PUBLISHED)
def test_the_last_map_is_not_shrunk_to_nothing(module: object, published: int, last: str) -> None:
    for channels, size, side in ((1, 32, 4), (3, 96, 3)):
        net: nn.Module = module.build(7, channels, size).eval()  # type: ignore[attr-defined]
        shapes: list[torch.Size] = []
        net.get_submodule(f"network.{last}").register_forward_hook(lambda _, __, out, to=shapes: to.append(out.shape))
        with torch.no_grad():
            assert net(torch.rand(1, channels, size, size)).shape == (1, 7)
        assert shapes[0][2:] == (side, side)


def test_a_grey_image_is_seen_in_three_channels() -> None:
    net = mobilenet_v2.build(5, 1, 32).eval()
    grey = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(grey), net(grey.expand(-1, 3, -1, -1)))


def test_small_images_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="densenet121 needs images of at least 8 pixels, got 7"):
        densenet121.build(10, 3, 7)

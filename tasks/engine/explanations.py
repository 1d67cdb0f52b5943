"""Where a network looks: Grad-CAM (arXiv:1610.02391) on the last convolution that an image passes through.

Each of that layer's maps is weighted by the mean gradient of the class' logit with respect to it; what is positive of
their sum speaks for the class. Differs: which layer is the last is seen from one pass through the network, so it works
on every network of models/ without knowing its names; and every map is scaled to [0, 1] by its own maximum.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tasks.engine.inference import device_of, evaluating


def activation_maps(net: nn.Module, images_BCHW: torch.Tensor, classes_B: torch.Tensor) -> torch.Tensor:
    """How much each pixel's surroundings speak for a class, B×H×W in [0, 1]; all 0 where nothing does.

    images: pixels in [0, 1]; classes: one for each image. ValueError if the network has no convolution. The network's
    weights, gradients and modes are left as they are; not for several threads at once, since hooks hang on the network.
    """
    if len(classes_B) != len(images_BCHW):
        raise ValueError(f"expected a class for each of {len(images_BCHW)} images, got {len(classes_B)}")
    device = device_of(net)
    last: list[torch.Tensor] = []

    def keep(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        last[:] = [output]
        return output.clone()  # what comes after may work in place

    hooks = [layer.register_forward_hook(keep) for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    try:
        with evaluating(net), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            inputs_BCHW = images_BCHW.detach().to(device, torch.float32).requires_grad_()
            logits_BK = net(inputs_BCHW)
            if not last:
                raise ValueError(f"expected a network with a convolution, {type(net).__name__} has none")
            chosen_B = logits_BK.gather(1, classes_B.to(device)[:, None]).squeeze(1)
            (slopes_BFhw,) = torch.autograd.grad(chosen_B.sum(), last)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.no_grad():
        weights_BF11 = slopes_BFhw.mean(dim=(2, 3), keepdim=True)
        maps_B1hw = F.relu((weights_BF11 * last[0].detach()).sum(dim=1, keepdim=True))
        maps_BHW = F.interpolate(maps_B1hw, images_BCHW.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
        highest_B11 = maps_BHW.amax(dim=(1, 2), keepdim=True)
        return torch.where(highest_B11 > 0, maps_BHW / highest_B11.clamp_min(1e-12), 0.0).cpu()

"""A network's fast copy: the same function of the image in bf16, for gradients on the image alone.

Steps want a direction, not a verdict. So the copy's weights are cast once and get no gradient; batch norm, in eval mode
a scale and a shift, is folded into the convolution before it; a ReLU before a max-pool moves behind it, where it finds
a quarter of the pixels and changes neither answer nor gradient; rows and columns that a max-pool drops, for they fill
no window of it, are cut off before the layers that lead there; and where a convolution sees few channels, its gradient
on them is a matrix product, which takes a fraction of the time of oneDNN's own kernel.

The layers are found by tracing the network (torch.fx). One that cannot be traced, because its path depends on what is
in the image, or whose traced form answers otherwise or has no gradient, is used as it is.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models._convolution import FewChannels, QuickConv2d, in_bf16, suits
from models._pooling import RectifiedMaxPool
from tasks.engine.inference import channels_last, device_of, evaluating

CLOSE = 1e-3  # of the largest logit: by so much the rewritten network may differ before it is cast

_copies: WeakKeyDictionary[nn.Module, _Copy] = WeakKeyDictionary()


def bf16_copy(net: nn.Module, images_BCHW: torch.Tensor) -> nn.Module:
    """`net` in eval mode with its weights as they are now, to be run under autocast; `net` itself if need be.

    The copy lives as long as the network, and each call casts the weights anew, which ends what the last call gave.
    images: two of them are answered by both, the first time, to see that rewriting changes nothing.
    """
    made = _copies.get(net)
    if made is None or made.of != _of(net, images_BCHW):
        made = _copies[net] = _Copy(net, images_BCHW[:2])
    if made.graph is None:
        return net
    made.refresh()
    return made.graph


def attack_network(net: nn.Module, images_BCHW: torch.Tensor) -> nn.Module:
    """What to take steps on: under bf16 autocast the fast copy, else the network."""
    return bf16_copy(net, images_BCHW) if in_bf16(images_BCHW) else net


class _Copy:
    """The rewritten network, or None, and what it was made for."""

    def __init__(self, net: nn.Module, probe_BCHW: torch.Tensor) -> None:
        self.of = _of(net, probe_BCHW)
        probe_BCHW = probe_BCHW.detach().to(device_of(net))
        with evaluating(net):
            with torch.no_grad(), torch.autocast(probe_BCHW.device.type, enabled=False):
                self.graph = _rewritten(net, probe_BCHW)
                if self.graph is not None and not _alike(self.graph(probe_BCHW), net(probe_BCHW)):
                    self.graph = None
            self._layers = [] if self.graph is None else [m for m in self.graph.modules() if isinstance(m, _Layer)]
            self.refresh()
            if self.graph is not None and not _leads_back(self.graph, probe_BCHW):
                self.graph = None

    def refresh(self) -> None:
        for layer in self._layers:
            layer.take(torch.bfloat16)


def _of(net: nn.Module, images_BCHW: torch.Tensor) -> tuple[object, ...]:
    """A network's modules, where they lie, and the images' shape: moved, it has other buffers than were traced."""
    return (*map(id, net.modules()), device_of(net), images_BCHW.shape[1:])


class _Layer(nn.Module):
    """A layer with weights of its own, taken from the network's: here fp32, later bf16."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, *of: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "of", of)  # not as submodules: they are the network's
        self.take(torch.float32)

    def take(self, dtype: torch.dtype) -> None:
        raise NotImplementedError

    def _hold(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)


class _Linear(_Layer):
    of: tuple[nn.Linear]

    def take(self, dtype: torch.dtype) -> None:
        self._hold(self.of[0].weight, self.of[0].bias, dtype)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.linear(values.to(self.weight.dtype), self.weight, self.bias)


class _Scale(_Layer):
    """Batch norm in eval mode that no convolution precedes."""

    of: tuple[nn.BatchNorm2d]

    def take(self, dtype: torch.dtype) -> None:
        (norm,) = self.of
        scale, shift = _folded(None, norm)
        self._hold(scale, shift[:, None, None], dtype)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        assert self.bias is not None
        return torch.addcmul(self.bias, maps_BCHW.to(self.weight.dtype), self.weight)


class _Convolution(_Layer):
    """A convolution, with the batch norm behind it if there is one."""

    of: tuple[nn.Conv2d] | tuple[nn.Conv2d, nn.BatchNorm2d]

    def take(self, dtype: torch.dtype) -> None:
        weight, bias = (self.of[0].weight, self.of[0].bias) if len(self.of) == 1 else _folded(*self.of)
        self._hold(weight, bias, dtype)
        # Copied even where it is both kinds of contiguous, with one channel: its strides decide how the answer lies.
        self.weight = torch.empty_like(self.weight, memory_format=torch.channels_last).copy_(self.weight)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        conv, maps_BCHW = self.of[0], maps_BCHW.to(self.weight.dtype)
        if suits(conv):
            found: torch.Tensor = FewChannels.apply(maps_BCHW, self.weight, self.bias, conv.padding)
        else:
            found = conv._conv_forward(maps_BCHW, self.weight, self.bias)
        return found


def _folded(conv: nn.Conv2d | None, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """A convolution's weight and bias with batch norm behind it; without one, the norm's own scale and shift."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    weight = torch.ones_like(mean)[:, None, None] if conv is None else conv.weight
    return fuse_conv_bn_weights(
        weight, None if conv is None else conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QuickConv2d | RectifiedMaxPool) or super().is_leaf_module(m, module_qualified_name)


def _rewritten(net: nn.Module, probe_BCHW: torch.Tensor) -> fx.GraphModule | None:
    """The network in fp32 with other layers; those that stay are its own. None if it cannot be traced."""
    try:
        graph = fx.GraphModule(net, _Tracer().trace(net))
    except Exception:  # whatever a forward of somebody's own raises when it is given no image
        return None
    for node in list(graph.graph.nodes):
        if node.op == "call_module" and not node.args and list(node.kwargs) == ["input"]:
            node.args, node.kwargs = (node.kwargs["input"],), {}
        layer = _module(graph, node)
        if type(layer) is nn.Conv2d or type(layer) is QuickConv2d:
            _put(graph, node, _Convolution(layer))
        elif type(layer) is nn.Linear:
            _put(graph, node, _Linear(layer))
        elif type(layer) is nn.BatchNorm2d and layer.running_mean is not None:
            before = node.args[0]
            found = _module(graph, before) if len(before.users) == 1 else None
            if isinstance(found, _Convolution) and len(found.of) == 1:
                _put(graph, before, _Convolution(found.of[0], layer))
                node.replace_all_uses_with(before)
                graph.graph.erase_node(node)
            else:
                _put(graph, node, _Scale(layer))
    for node in list(graph.graph.nodes):
        if _is_max_pool(graph, node) and _is_relu(graph, node.args[0]) and len(node.args[0].users) == 1:
            relu = node.args[0]
            node.replace_input_with(relu, relu.args[0])
            node.replace_all_uses_with(relu)
            relu.replace_input_with(relu.args[0], node)
            node.append(relu)
    for node in list(graph.graph.nodes):
        if _is_relu(graph, node) and _by_two(_module(graph, node.args[0])) and len(node.args[0].users) == 1:
            pool = node.args[0]
            node.replace_all_uses_with(pool)
            graph.graph.erase_node(node)
            _put(graph, pool, RectifiedMaxPool())
    _cut(graph, probe_BCHW)
    for node in list(graph.graph.nodes):
        if _is_relu(graph, node) and len(node.args[0].users) == 1:
            before = _module(graph, node.args[0])
            if isinstance(before, _Layer | nn.MaxPool2d):  # whose gradient does not need what they answered
                node.op, node.kwargs = "call_module", {}
                _put(graph, node, nn.ReLU(inplace=True))
    graph.recompile()
    return graph


def _cut(graph: fx.GraphModule, probe_BCHW: torch.Tensor) -> None:
    """Leave out rows and columns that reach no logit, since a max-pool drops what fills no window of it."""
    ShapeProp(graph).propagate(probe_BCHW)
    needed: dict[fx.Node, tuple[int, int]] = {}  # of maps, how many rows and columns from the first
    for node in reversed(graph.graph.nodes):
        asked = [_needed(graph, user, needed) for user in node.users]
        known = [rows_columns for rows_columns in asked if rows_columns is not None]
        if known and len(known) == len(asked):
            needed[node] = max(rows for rows, _ in known), max(columns for _, columns in known)
    for node in list(graph.graph.nodes):
        if node not in needed or _needed(graph, node, needed) is not None:
            continue  # what it is made of is cut
        rows, columns = needed[node]
        if (rows, columns) != _size(node):
            with graph.graph.inserting_after(node):
                cut = graph.graph.call_function(_first, (node, rows, columns))
            node.replace_all_uses_with(cut, lambda user, cut=cut: user is not cut)


def _first(maps_BCHW: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return maps_BCHW[:, :, :rows, :columns]


def _needed(graph: fx.GraphModule, node: fx.Node, needed: dict[fx.Node, tuple[int, int]]) -> tuple[int, int] | None:
    """Rows and columns that a layer needs for those needed of its answer, or for all; None where it is not known."""
    windows, answer = _windows(graph, node), needed.get(node, _size(node))
    if windows is None or answer is None:
        return None
    rows, columns = ((n - 1) * stride + kernel for n, (kernel, stride) in zip(answer, windows, strict=True))
    return rows, columns


def _size(node: fx.Node) -> tuple[int, int] | None:
    """Rows and columns of its answer; None if that is no batch of maps."""
    shape = tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
    return (shape[2], shape[3]) if len(shape) == 4 else None


def _windows(graph: fx.GraphModule, node: Any) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Down and across, how many pixels one of the answer hangs on, and how far the next one's lie; None if padded."""
    layer = _module(graph, node)
    if isinstance(layer, nn.ReLU | nn.Identity | nn.Dropout | nn.Dropout2d | _Scale) or _is_relu(graph, node):
        return (1, 1), (1, 1)
    of = layer.of[0] if isinstance(layer, _Convolution) else layer
    if isinstance(layer, RectifiedMaxPool):
        return (2, 2), (2, 2)
    if not isinstance(of, nn.Conv2d) and (type(of) is not nn.MaxPool2d or of.return_indices or of.ceil_mode):
        return None
    if isinstance(of.padding, str) or _pair(of.padding) != (0, 0) or _pair(of.dilation) != (1, 1):
        return None
    kernel, stride = _pair(of.kernel_size), _pair(of.stride)
    return (kernel[0], stride[0]), (kernel[1], stride[1])


def _pair(given: Any) -> tuple[int, int]:
    return tuple(given) if isinstance(given, tuple | list) else (given, given)


def _put(graph: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    """`layer` for this node alone, for a module of the network may stand in several places."""
    name = f"fast_{node.name}"
    graph.add_module(name, layer)
    node.target = name


def _module(graph: fx.GraphModule, node: Any) -> nn.Module | None:
    called = isinstance(node, fx.Node) and node.op == "call_module"
    return graph.get_submodule(str(node.target)) if called else None


def _is_relu(graph: fx.GraphModule, node: Any) -> bool:
    if type(_module(graph, node)) is nn.ReLU:
        return True
    return isinstance(node, fx.Node) and node.target in (F.relu, torch.relu, "relu") and len(node.args) == 1


def _by_two(layer: nn.Module | None) -> bool:
    """Whether it is `nn.MaxPool2d(2)`, with nothing else said."""
    if type(layer) is not nn.MaxPool2d or layer.return_indices or layer.ceil_mode:
        return False
    sizes = [_pair(given) for given in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)]
    return sizes == [(2, 2), (2, 2), (0, 0), (1, 1)]


def _is_max_pool(graph: fx.GraphModule, node: fx.Node) -> bool:
    layer = _module(graph, node)
    return type(layer) is nn.MaxPool2d and not layer.return_indices


def _alike(ours_BK: torch.Tensor, theirs_BK: torch.Tensor) -> bool:
    return bool((ours_BK - theirs_BK).abs().max() <= CLOSE * theirs_BK.abs().max())


def _leads_back(graph: nn.Module, probe_BCHW: torch.Tensor) -> bool:
    """Whether a gradient gets back to the image: what a layer that was moved answered, it keeps for its gradient, and
    one of the network's own that works in place may overwrite it."""
    with torch.enable_grad(), torch.autocast(probe_BCHW.device.type, torch.bfloat16):
        asked_BCHW = channels_last(probe_BCHW).requires_grad_()
        try:
            torch.autograd.grad(graph(asked_BCHW).sum(), asked_BCHW)
        except RuntimeError:
            return False
    return True

"""Which convolutions of a network are 1×1 shortcuts, beside its main path.

A residual block adds what its layers made to what came in; where the two differ in shape, a 1×1 convolution brings what
came in to the new shape. Robustness depends on it least, and it has least to give: it is found in the network's graph
(torch.fx), whatever it is called.
"""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def shortcuts(net: nn.Module) -> frozenset[str] | None:
    """The names of modules that stand alone on one side of an addition, 1×1, with more of the network on the other.

    None where the network cannot be traced because its path depends on the image.
    """
    try:
        nodes = _Tracer().trace(net).nodes
    except Exception:  # whatever a forward of somebody's own raises when it is given no image
        return None
    modules, found = dict(net.named_modules()), set()
    names = {layer: name for name, layer in modules.items()}
    for node in nodes:
        sides = node.all_input_nodes
        if node.target not in ADDITIONS or len(sides) != 2:
            continue
        for one, other in (sides, sides[::-1]):
            fork = _fork(one)
            alone, beside = _convolutions(one, fork, modules), _convolutions(other, fork, modules)
            if len(alone) == 1 and _is_1x1(alone[0]) and not all(map(_is_1x1, beside)):
                found.add(names[alone[0]])
    return frozenset(found)


def _fork(node: fx.Node) -> fx.Node:
    """Where the straight line that leads to a node begins: at what others use too, or at what is made of several."""
    while len(node.users) == 1 and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node


def _convolutions(node: fx.Node, fork: fx.Node, modules: dict[str, nn.Module]) -> list[nn.Conv2d]:
    """The convolutions from a node back to the fork; none if no way leads back to it."""
    seen, left, found = {node}, [node], []
    while left:
        each = left.pop()
        if each is fork:
            continue
        layer = modules[str(each.target)] if each.op == "call_module" else None
        if isinstance(layer, nn.Conv2d):
            found.append(layer)
        left += [before for before in each.all_input_nodes if before not in seen]
        seen.update(each.all_input_nodes)
    return found if fork in seen else []


def _is_1x1(layer: nn.Conv2d) -> bool:
    return set(layer.kernel_size) == {1}

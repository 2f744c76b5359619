"""Batch norms folded into the convolutions before them: fewer passes over memory where weights no longer change."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


class Tracer(fx.Tracer):
    """Sees convolutions and batch norms as wholes, timm's own kinds too, and modules that say so by `is_whole`."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = isinstance(module, nn.Conv2d | nn.BatchNorm2d) or getattr(module, "is_whole", False)
        return whole or super().is_leaf_module(module, name)


def fold_batch_norms(model: Network) -> Network:
    """A copy for inference: each batch norm that follows a convolution alone becomes part of it.

    The result computes the same up to rounding, in evaluation mode only; it is not meant to be trained or saved.

    Args:
        model: whatever torch.fx can trace, such as the backbones of this package.
    """
    model = copy.deepcopy(model).eval()
    graph, modules = Tracer().trace(model), dict(model.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        norm = modules[node.target] if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        source = node.args[0]
        conv = modules[source.target] if source.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or len(source.users) > 1 or calls.count(source.target) > 1:
            continue
        model.set_submodule(source.target, fuse_conv_bn_eval(conv, norm))
        # timm's norms bring their activation along.
        activation = getattr(norm, "act", None)
        model.set_submodule(node.target, activation if isinstance(activation, nn.Module) else nn.Identity())
    return model

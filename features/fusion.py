"""Layers of a frozen network that one kernel computes at once: the same function, fewer passes."""

import copy
import functools
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental import optimization
from torch.nn import functional as F

from features.window_rollout import ATTENTION

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RECTIFIERS = (F.relu, torch.relu)


def folded(model: nn.Module) -> nn.Module:
    """A network with its batch norms folded into the convolutions before them, where that works.

    The function stays the same up to rounding, and is faster on a CPU. Networks that cannot be
    traced are left as they are.
    """
    for layer in model.modules():  # only the very class is recognised, r3d_18 has one of its own
        if isinstance(layer, nn.Conv3d) and type(layer).forward is nn.Conv3d.forward:
            layer.__class__ = nn.Conv3d
    try:
        traced = fx.GraphModule(model, _Tracer().trace(model))
        return optimization.fuse(traced, no_trace=True)  # type: ignore[no-any-return, no-untyped-call]
    except Exception:  # whatever tracing a network's own code raises
        return model


class _Tracer(fx.Tracer):
    """Leaves layers of attention whole, which `features.window_rollout` listens to."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ATTENTION) or super().is_leaf_module(m, module_qualified_name)


def fused(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A network whose convolutions also add and rectify what comes out of them, on a CPU.

    Convolutions run in oneDNN, which can add another tensor to the result and clip it while it is
    still in the processor's registers (Intel, oneDNN Developer Guide, "Primitive Attributes:
    Post-ops"); PyTorch compiles networks to these calls. There are no gradients through them.

    Args:
        model: in evaluation mode; only what `folded` could trace changes. Its layers are shared.
        dtype: of the weights of its convolutions.
    """
    if not isinstance(model, fx.GraphModule) or not _can_fuse(dtype):
        return model
    result = fx.GraphModule(model, copy.deepcopy(model.graph))
    layers = dict(result.named_modules())
    for node in list(result.graph.nodes):
        if rectifier := _rectifier(node, layers):
            _fuse(result, layers, node, *rectifier)
    if dtype is torch.bfloat16:
        for node in list(result.graph.nodes):
            _pool_as_integers(result, layers, node)
    result.graph.lint()
    result.recompile()
    return result


class _Convolution(nn.Module):
    """A convolution, and what is done with its result.

    Args:
        layer: gives weights, strides and so on.
        highest: what the result is clipped to; None: to nothing but zero.
    """

    def __init__(self, layer: nn.Conv2d | nn.Conv3d, highest: float | None) -> None:
        super().__init__()
        self.layer = layer
        self._how = (
            list(layer.padding),
            list(layer.stride),
            list(layer.dilation),
            layer.groups,
        )
        self._clip: tuple[str, list[float]] = ("relu", [])
        if highest is not None:
            self._clip = ("hardtanh", [0.0, highest])

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        kernels: Any = torch.ops.mkldnn._convolution_pointwise
        x = x.to(weight.dtype)  # as autocast would
        if other is None:
            return kernels(x, weight, bias, *self._how, *self._clip, "")  # type: ignore[no-any-return]
        other = other.to(weight.dtype)
        how = (*self._how, "add", None, *self._clip, "")
        return kernels.binary(x, other, weight, bias, *how)  # type: ignore[no-any-return]


class _PoolAsIntegers(nn.Module):
    """The largest of some numbers that are not negative, which are in the order of their bits."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.bfloat16:
            return self.layer(x)  # type: ignore[no-any-return]
        return self.layer(x.view(torch.int16)).view(x.dtype)  # type: ignore[no-any-return]


def _fuse(
    model: fx.GraphModule, layers: dict[str, nn.Module], node: fx.Node, highest: float | None
) -> None:
    """Let a convolution rectify, and add, if one is what a rectifier gets its numbers from."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or len(source.users) > 1:
        return
    others: list[fx.Node]
    if _convolution(source, layers):
        convolution, others = source, []
    elif source.op == "call_function" and source.target in _ADDITIONS and len(source.args) == 2:
        # It is computed where the sum was, so nobody may have changed its input meanwhile.
        alone = [
            part
            for part in source.args
            if isinstance(part, fx.Node)
            and _convolution(part, layers)
            and len(part.users) == 1
            and len(part.all_input_nodes[0].users) == 1
        ]
        if not alone:
            return
        convolution = alone[0]
        other = source.args[1] if source.args[0] is convolution else source.args[0]
        if not isinstance(other, fx.Node):
            return
        others = [other]
    else:
        return
    name = f"{convolution.target}_fused".replace(".", "_")
    layers[name] = _Convolution(layers[str(convolution.target)], highest)  # type: ignore[arg-type]
    model.add_submodule(name, layers[name])
    with model.graph.inserting_after(source):
        new = model.graph.call_module(name, (convolution.args[0], *others))
    node.replace_all_uses_with(new)
    for old in dict.fromkeys((node, source, convolution)):
        model.graph.erase_node(old)


def _pool_as_integers(model: fx.GraphModule, layers: dict[str, nn.Module], node: fx.Node) -> None:
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    if type(layer) is not nn.MaxPool2d or layer.return_indices:
        return
    source = node.args[0]
    if isinstance(source, fx.Node) and source.op == "call_module":
        before = layers[str(source.target)]
        if isinstance(before, _Convolution | nn.ReLU):
            name = f"{node.target}_of_integers".replace(".", "_")
            layers[name] = _PoolAsIntegers(layer)
            model.add_submodule(name, layers[name])
            node.target = name


def _rectifier(node: fx.Node, layers: dict[str, nn.Module]) -> tuple[float | None] | None:
    """What a node clips its input to from above, in a tuple; None if it is no rectifier."""
    if node.op == "call_function" and node.target in _RECTIFIERS:
        return (None,)
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    if type(layer) is nn.ReLU:
        return (None,)
    return (6.0,) if type(layer) is nn.ReLU6 else None


def _convolution(node: fx.Node, layers: dict[str, nn.Module]) -> bool:
    layer = layers.get(str(node.target)) if node.op == "call_module" else None
    return (
        type(layer) in (nn.Conv2d, nn.Conv3d)
        and layer.padding_mode == "zeros"  # type: ignore[union-attr]
        and not isinstance(layer.padding, str)  # type: ignore[union-attr]
    )


@functools.cache
def _can_fuse(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has these kernels, on this processor, and they say what they should."""
    last = {"dtype": dtype, "memory_format": torch.channels_last}
    layer = nn.Conv2d(8, 8, 3, padding=1).requires_grad_(False)
    layer.to(**last)  # type: ignore[call-overload]
    x = torch.linspace(-2, 2, 8 * 16).reshape(1, 8, 4, 4).to(**last)  # type: ignore[call-overload]
    try:
        plain, found = layer(x), _Convolution(layer, 1.0)(x)
        both = _Convolution(layer, None)(x, x)
        pooled = F.max_pool2d(x.view(torch.int16) if dtype is torch.bfloat16 else x, 2)
    except (AttributeError, RuntimeError, NotImplementedError):  # what is missing differs
        return False
    near = functools.partial(torch.allclose, rtol=0.02, atol=0.02)
    return (
        near(found, plain.clamp(0, 1)) and near(both, (plain + x).relu()) and pooled.numel() == 32
    )

"""What makes a network faster once it learns no more, without changing what it computes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import fusion
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pixelcontrast.models.decoders.aspp import SmallBatchNorm

if TYPE_CHECKING:
    from collections.abc import Callable

_BARE_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SmallBatchNorm)
_fuse: Any = fusion.fuse_conv_bn_weights  # its annotations leave out what may be absent
_DESCRIPTIONS = ("__get__", "dim", "size", "stride", "numel")


def fold_batch_norm(network: nn.Module, image: Tensor) -> int:
    """Merges batch norm in evaluation mode into the convolution before it, in place.

    Running statistics are constants by then, so that convolution and norm are one affine map. The
    pairs are not looked for by their names: one pass is watched, and a norm is merged if what it
    reads comes from a convolution, nothing else reads that map or these weights, and both modules
    are of a known kind and have no hooks. Any other norm stays as it is. timm's norms with an
    activation leave the activation behind.

    Args:
        network: a network in evaluation mode; its output must be all that is wanted from it.
        image: an input for the pass, of any values.

    Returns:
        The number of norms that were merged.
    """
    convolutions = {
        id(module.weight): module for module in _own(network) if isinstance(module, nn.Conv2d)
    }
    norms = {
        id(module.running_mean): module
        for module in _own(network)
        if _can_go(module) and module.running_mean is not None
    }
    names = {id(module): name for name, module in network.named_modules()}
    with torch.no_grad(), _Watch() as watch:
        wanted = network(image)
        watch.reads.update(id(t) for t in tree_leaves(wanted) if isinstance(t, Tensor))
    folded = 0
    for feature, mean in watch.normalised:
        weight = watch.convolved.get(id(feature))
        if not isinstance(mean, Tensor) or weight is None:
            continue
        convolution, norm = convolutions.get(id(weight)), norms.get(id(mean))
        alone = all(watch.reads[id(tensor)] == 1 for tensor in (feature, weight, mean))
        if convolution is not None and norm is not None and alone:
            _merge(convolution, norm)
            activation = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
            network.set_submodule(names[id(norm)], activation)
            folded += 1
    return folded


def suit_processor(network: nn.Module) -> None:
    """Arranges the weights of convolutions as a CPU computes them fastest, in place.

    Channels last, because depthwise convolutions of oneDNN take many times as long otherwise. And
    1x1 convolutions are called dilated, which means nothing for them: on one thread torch gives
    only strided and dilated ones to oneDNN and multiplies the others as matrices, which takes up
    to twice as long. Not for exports, whose readers may know fast paths for plain ones.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.dilation = (2, 2)


class _Watch(TorchFunctionMode):
    """Notes which tensors are read how often, and what convolutions and batch norms read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[int] = Counter()
        self.convolved: dict[int, Tensor] = {}
        """The weight of the convolution that made a map."""
        self.normalised: list[tuple[Tensor, Tensor | None]] = []
        """Map and running mean of every batch norm."""
        self._alive: list[Any] = []  # an address names a tensor only while it lives

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = any(isinstance(leaf, Tensor) for leaf in tree_leaves(result))
        if made or getattr(func, "__name__", "") not in _DESCRIPTIONS:
            self.reads.update(map(id, leaves))
        self._alive.append((result, leaves))
        if func is F.conv2d and len(args) > 1:
            self.convolved[id(result)] = args[1]
        elif func is F.batch_norm and len(args) > 1:
            self.normalised.append((args[0], args[1]))
        return result


def _own(network: nn.Module) -> list[nn.Module]:
    """Modules without hooks that stand at one place only."""
    places = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    return [
        module
        for module in network.modules()
        if places[id(module)] == 1 and not (module._forward_hooks or module._forward_pre_hooks)
    ]


def _can_go(module: nn.Module) -> bool:
    """Whether a module is batch norm by its running statistics and, at most, an activation."""
    if module.training:
        return False
    if type(module) is BatchNormAct2d:
        return isinstance(module.drop, nn.Identity)
    return type(module) in _BARE_NORMS


def _merge(convolution: nn.Conv2d, norm: Any) -> None:
    """The convolution gets the weights that do what both did."""
    dtype = convolution.weight.dtype
    weight, bias, mean, variance, scale, shift = (
        None if tensor is None else tensor.detach().double()
        for tensor in (
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
        )
    )
    merged: tuple[Tensor, Tensor] = _fuse(weight, bias, mean, variance, norm.eps, scale, shift)
    convolution.weight, convolution.bias = (
        nn.Parameter(tensor.detach().to(dtype), requires_grad=False) for tensor in merged
    )

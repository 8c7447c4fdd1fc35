"""Gradient checkpointing: blocks of a backbone that are computed twice and stored once."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTS = (nn.Sequential, nn.ModuleList)
_WEIGHTED = (nn.Conv2d, nn.Linear)


def blocks_of(net: nn.Module) -> dict[str, nn.Module]:
    """The repeated units of a backbone, shallow to deep, by name.

    A unit is a member of a list of modules that has at least two convolutions or linear maps and
    no smaller unit inside: the residual block of a ResNet, a transformer's block.
    """
    found: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
        if isinstance(module, _LISTS):
            for index, child in module.named_children():
                if not isinstance(child, _LISTS) and _is_unit(child):
                    found[f"{name}.{index}"] = child
    return {
        name: module
        for name, module in found.items()
        if not any(other.startswith(f"{name}.") for other in found)
    }


def recompute(net: nn.Module) -> int:
    """Has every unit of `net` computed again in the backward pass instead of stored.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost" (1604.06174). Gradients stay the
    same; the second pass draws the same dropout and leaves the running statistics of batch norm
    alone, which the first one has updated.

    Args:
        net: a backbone; changed in place.

    Returns:
        The number of units.
    """
    units = blocks_of(net)
    for unit in units.values():
        # An attribute of the instance hides the method of its class.
        unit.forward = partial(_twice, unit)
    return len(units)


def _twice(unit: nn.Module, *inputs: Any, **options: Any) -> Any:
    """The forward pass of a unit, without storing what happens inside while training."""
    forward = partial(type(unit).forward, unit)
    if not (unit.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    return checkpoint(
        forward,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _without_statistics(unit)),
        **options,
    )


@contextmanager
def _without_statistics(unit: nn.Module) -> Iterator[None]:
    """Batch norm leaves its running statistics and its count of batches as they are."""
    norms = [m for m in unit.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        # Dropping the statistics instead would change what the pass stores, which is checked.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def _is_unit(module: nn.Module) -> bool:
    return sum(isinstance(inner, _WEIGHTED) for inner in module.modules()) > 1

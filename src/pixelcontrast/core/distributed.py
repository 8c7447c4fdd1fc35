"""The few collective operations the losses and memories need; without a process group, no-ops.

Everything here keeps one promise: k processes with B/k images each compute what one process
computes with all B images, the images being numbered in rank order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch import nn


def world_size() -> int:
    """Number of processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def wait_for_all() -> None:
    """Wait until every process is here, for example until the first one has written a file."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over the processes, without gradient; the argument is not changed."""
    total = tensor.detach()
    if world_size() > 1:
        total = total.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
    return total


def all_reduce_sum_with_grad(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over the processes; each gets the sum of all gradients of it."""
    if world_size() == 1:
        return tensor
    total: Tensor = _AllReduceSum.apply(tensor)
    return total


def gather_rows(rows: Tensor, *, same_rows: bool = False) -> Tensor:
    """The rows of all processes one below the other, in rank order, without gradient.

    Args:
        rows: (M, ...) on every process; M may differ, the other sizes and the type may not.
        same_rows: M is known to be equal on all processes. Otherwise the counts are exchanged
            first, which makes the host wait for the device once.
    """
    rows = rows.detach()
    return rows if world_size() == 1 else torch.cat(_gather(rows, same_rows=same_rows))


def gather_rows_with_grad(rows: Tensor, *, same_rows: bool = False) -> Tensor:
    """`gather_rows` whose gradient returns to the process that owns the row.

    The gradients that all processes send to a row are added, as in one process.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, same_rows)
    return gathered


def mean_over_ranks(total: Tensor, count: Tensor) -> Tensor:
    """The share of this process in a mean over all processes.

    DistributedDataParallel averages gradients over processes. Weighted like this, that average
    is the gradient of `sum of totals / sum of counts`, however unevenly the items are spread.

    Args:
        total: () sum over the items of this process, attached to the graph.
        count: () number of items (or sum of weights) of this process.

    Returns:
        () `world_size * total / sum of counts`; 0, still attached, when no process has an item.
    """
    everyone = all_reduce_sum(count).to(total.dtype)
    share = total * (world_size() / torch.where(everyone > 0, everyone, 1))
    return torch.where(everyone > 0, share, total * 0)


def keep_out_of_ddp(root: nn.Module) -> None:
    """Tell DistributedDataParallel to leave alone the buffers that all processes compute alike.

    By default it copies every buffer of rank 0 to the others before each forward pass: useless
    for memories, which already are equal, and expensive, since they may have hundreds of MB.
    A module asks for this by a true class attribute `same_on_all_ranks`.

    Args:
        root: the module that will be wrapped; call this first.
    """
    names = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in root.named_modules()
        if getattr(module, "same_on_all_ranks", False)
        for name, _ in module.named_buffers()
    }
    already = getattr(root, "_ddp_params_and_buffers_to_ignore", ())
    root._ddp_params_and_buffers_to_ignore = sorted(names.union(already))  # type: ignore[assignment]


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return all_reduce_sum(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return all_reduce_sum(gradients[0])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, same_rows: bool) -> Tensor:
        blocks = _gather(rows, same_rows=same_rows)
        ctx.start = sum(block.shape[0] for block in blocks[: rank()])
        ctx.rows = rows.shape[0]
        return torch.cat(blocks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = all_reduce_sum(gradients[0])
        return total[ctx.start : ctx.start + ctx.rows], None


def _gather(rows: Tensor, *, same_rows: bool) -> list[Tensor]:
    counts = [rows.shape[0]] * world_size()
    if not same_rows:
        mine = torch.full((1,), rows.shape[0], dtype=torch.int64, device=rows.device)
        counts = torch.cat(_all_gather(mine)).tolist()
    # Collectives want equal shapes: pad to the longest block and cut the padding off again.
    missing = max(counts) - rows.shape[0]
    padded = F.pad(rows, [0, 0] * (rows.dim() - 1) + [0, missing]) if missing else rows
    return [block[:count] for block, count in zip(_all_gather(padded), counts, strict=True)]


def _all_gather(rows: Tensor) -> list[Tensor]:
    # Not every back end moves booleans.
    sent = rows.contiguous().view(torch.uint8) if rows.dtype == torch.bool else rows.contiguous()
    blocks = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(blocks, sent)
    return [block.view(rows.dtype) for block in blocks]

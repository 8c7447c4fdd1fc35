from __future__ import annotations

import math

import pytest
import torch
from tests.gloo import two_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pixelcontrast.core.distributed import (
    all_reduce_sum,
    all_reduce_sum_with_grad,
    gather_rows,
    gather_rows_with_grad,
    keep_out_of_ddp,
    mean_over_ranks,
    rank,
    world_size,
)


class Memory(nn.Module):
    same_on_all_ranks = True

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.zeros(2))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False)
        self.register_buffer("shared", torch.zeros(2))
        self.memory = Memory()

    def forward(self, x):
        return self.layer(x)


def test_without_a_process_group():
    rows = torch.rand(3, 2, requires_grad=True)
    assert (world_size(), rank()) == (1, 0)
    assert gather_rows_with_grad(rows) is rows
    assert all_reduce_sum_with_grad(rows) is rows
    assert torch.equal(gather_rows(rows), rows)
    assert not gather_rows(rows).requires_grad
    assert torch.equal(all_reduce_sum(rows), rows)
    assert not all_reduce_sum(rows).requires_grad
    mean = mean_over_ranks(rows.sum(), torch.tensor(3))
    assert mean.item() == pytest.approx(rows.sum().item() / 3)
    mean.backward()
    torch.testing.assert_close(rows.grad, torch.full((3, 2), 1 / 3))


def test_mean_over_nothing_is_an_attached_zero():
    rows = torch.ones(1, requires_grad=True)
    mean = mean_over_ranks(rows.sum() * 0, torch.tensor(0))
    mean.backward()
    assert mean.item() == 0
    assert rows.grad.item() == 0


def rows_of(process):
    """Process 0 has two rows, process 1 three: rows 0 to 4 of one process."""
    everything = torch.arange(10, dtype=torch.float64).view(5, 2).sin()
    return everything[:2] if process == 0 else everything[2:]


def pair_loss(rows, all_rows):
    return (rows @ all_rows.T).exp().sum()


def collect(process):
    found = {"rank": rank(), "world": world_size()}
    rows = rows_of(process)
    found["rows"] = gather_rows(rows)
    found["columns"] = gather_rows(rows[:1].t().contiguous().t()[:, 1], same_rows=True)
    found["flags"] = gather_rows(rows[:, 0] > 0)
    found["none"] = gather_rows(rows[: 3 * process])  # nothing on process 0
    found["sum"] = all_reduce_sum(rows[0])
    found["unchanged"] = torch.equal(rows, rows_of(process))

    leaf = rows.clone().requires_grad_()
    pair_loss(leaf, gather_rows_with_grad(leaf)).backward()
    found["gradient"] = leaf.grad

    share = rows_of(0).clone().requires_grad_()
    total = all_reduce_sum_with_grad((process + 1) * share)
    ((process + 2) * total.square()).sum().backward()
    found["total"], found["total_gradient"] = total.detach(), share.grad

    torch.manual_seed(0)
    network = Network()
    network.shared.fill_(process + 1)
    network.memory.kept.fill_(process + 1)
    keep_out_of_ddp(network)
    wrapped = DistributedDataParallel(network)
    out = wrapped(rows.float())
    mean_over_ranks(out.square().sum(), torch.tensor(len(rows))).backward()
    found["kept"] = network.memory.kept
    found["shared"] = network.shared
    found["mean_gradient"] = network.layer.weight.grad
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in found.items()}


@pytest.fixture(scope="module")
def two():
    results = two_processes(collect)
    return [
        {k: v if isinstance(v, int) else torch.as_tensor(v) for k, v in results[p].items()}
        for p in range(2)
    ]


def test_rows_arrive_in_rank_order(two):
    everything = torch.cat([rows_of(0), rows_of(1)])
    for process, found in enumerate(two):
        assert (found["rank"], found["world"]) == (process, 2)
        assert torch.equal(found["rows"], everything)
        assert torch.equal(found["columns"], everything[[0, 2], 1])
        assert torch.equal(found["flags"], everything[:, 0] > 0)
        assert torch.equal(found["none"], rows_of(1))
        assert torch.equal(found["sum"], everything[0] + everything[2])
        assert found["unchanged"]


def test_gradient_of_gathered_rows_is_that_of_one_process(two):
    everything = torch.cat([rows_of(0), rows_of(1)]).requires_grad_()
    pair_loss(everything, everything).backward()
    torch.testing.assert_close(torch.cat([found["gradient"] for found in two]), everything.grad)


def test_gradient_of_a_sum_is_that_of_all_losses(two):
    for process, found in enumerate(two):
        torch.testing.assert_close(found["total"], 3 * rows_of(0))
        expected = (process + 1) * (2 + 3) * 2 * 3 * rows_of(0)
        torch.testing.assert_close(found["total_gradient"], expected)


def test_mean_weighs_items_not_processes(two):
    torch.manual_seed(0)
    network = Network()
    everything = torch.cat([rows_of(0), rows_of(1)]).float()
    (network(everything).square().sum() / 5).backward()
    for found in two:
        torch.testing.assert_close(found["mean_gradient"], network.layer.weight.grad)
    assert not math.isclose(network.layer.weight.grad.abs().sum().item(), 0)


def test_memories_are_not_broadcast_and_other_buffers_are(two):
    for process, found in enumerate(two):
        assert found["kept"].tolist() == [process + 1] * 2
        assert found["shared"].tolist() == [1, 1]

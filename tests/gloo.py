"""Runs a function in two processes that can talk to each other."""

import socket

import torch
import torch.multiprocessing as mp
from torch import distributed as dist


def two_processes(function, *arguments):
    """`[function(0, *arguments), function(1, *arguments)]`, each in a process of its own.

    The function must be importable and return numbers, arrays, or dictionaries of them: tensors do
    not outlive their process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.Queue()
    processes = [
        # Daemons, so that a failed test does not wait for the process that is left over.
        context.Process(target=_worker, args=(rank, port, queue, function, arguments), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=600) for _ in processes)
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return [found[0], found[1]]


def _worker(rank, port, queue, function, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        queue.put((rank, function(rank, *arguments)))
        dist.barrier()
    finally:
        dist.destroy_process_group()

"""Runs a function in two processes that can talk to each other."""

import atexit
import socket
import traceback
from queue import Empty

import torch
import torch.multiprocessing as mp
from torch import distributed as dist

_pair = None  # kept for the next test: starting it costs more than most tests


def two_processes(function, *arguments):
    """`[function(0, *arguments), function(1, *arguments)]`, each in a process of its own.

    The function must be importable and return numbers, arrays, or dictionaries of them: tensors do
    not outlive their process.
    """
    global _pair
    if _pair is None:
        _pair = _Pair()
        atexit.register(_pair.end)
    try:
        return _pair.run(function, arguments)
    except BaseException:
        _pair.end()
        _pair = None
        raise


class _Pair:
    """Two processes that take one job after the other."""

    def __init__(self):
        context = mp.get_context("spawn")
        self.results = context.Queue()
        self.jobs = [context.Queue() for _ in range(2)]
        self.processes = [
            context.Process(target=_work, args=(rank, jobs, self.results), daemon=True)
            for rank, jobs in enumerate(self.jobs)
        ]
        for process in self.processes:
            process.start()

    def run(self, function, arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for jobs in self.jobs:
            jobs.put((port, function, arguments))
        found = {}
        for _ in self.processes:
            try:
                rank, value, failure = self.results.get(timeout=300)
            except Empty:
                raise AssertionError("two processes wait for each other, or one is gone") from None
            assert failure is None, f"process {rank}: {failure}"
            found[rank] = value
        return [found[0], found[1]]

    def end(self):
        for process in self.processes:
            process.kill()


def _work(rank, jobs, results):
    torch.set_num_threads(1)
    while True:
        port, function, arguments = jobs.get()
        address = f"tcp://127.0.0.1:{port}"
        dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
        try:
            results.put((rank, function(rank, *arguments), None))
            dist.barrier()
        except Exception:
            results.put((rank, None, traceback.format_exc()))
        finally:
            dist.destroy_process_group()

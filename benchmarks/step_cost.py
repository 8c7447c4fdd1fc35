"""What a method adds to a training step, beside its supervised twin.

    python benchmarks/step_cost.py pico pico_memory --set camvid_small --data CAMVID
    python benchmarks/step_cost.py contextrast --set scenes
    python benchmarks/step_cost.py unimatch u2pl prcl --set scenes_few

builds the recipe of every method and `supervised_<set>`, warm-ups left out, takes a few batches
of each into memory, and then lets them take turns, in random order within a round: whole steps
(losses, backward pass, optimiser, averaged weights, the method's own memory), process CPU time of
one thread, because other jobs shared the machine. Each time is divided by that of the twin in the
same round; the median over the rounds is reported. Remembered embeddings are filled with random
ones first. Memory is the growth of the peak resident set from before the network was built, in a
process of its own, without the stored embeddings, which are reported beside it.
Results go to benchmarks/results/step_cost.json, merged by set and method.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from pixelcontrast.core import process_memory
from pixelcontrast.data import build_train_loader
from pixelcontrast.engine.prepare import assemble, build_method, prepare
from pixelcontrast.engine.streams import stream_batch, stream_samples
from pixelcontrast.memory import ClassQueue, RegionMemory

RESULT = Path(__file__).parent / "results" / "step_cost.json"
TWIN = "supervised"
TIME_BARS = {"pico": 0.15, "pico_memory": 0.30, "contextrast": 0.25}
MEMORY_BAR = 0.15
"""Shares of the twin's step that a method may add."""


class Training:
    """A method of a recipe, with what the engine would give it, and batches in memory."""

    def __init__(self, recipe: str, overrides: list[str], batches: int) -> None:
        tree = assemble(recipe, overrides, {})
        for key in ("warmup_steps", "supervised_epochs"):
            if key in tree["method"]:
                tree["method"][key] = 0
        config, sources, _ = prepare(tree)
        self.base = process_memory.resident()
        self.method, _ = build_method(config, sources)
        self.method.train()
        if config.train.channels_last:
            self.method.to(memory_format=torch.channels_last)
        self.clip = config.optim.clip_norm
        self.optimizer = self.method.configure_optimizers()["optimizer"]
        streams = self.method.streams
        loaders = {
            stream.name: build_train_loader(
                stream_samples(sources, streams, stream),
                sources.dataset.info,
                stream=stream,
                view=config.view,
                strong=config.strong,
                batch_size=stream_batch(config.train, stream),
                steps=batches,
                seed=config.seed,
                workers=0,
            )
            for stream in streams
        }
        rows = zip(*loaders.values(), strict=True)
        self.batches = [dict(zip(loaders, row, strict=True)) for row in rows]
        self.taken = 0
        self.stored = fill_memories(self.method)

    def step(self) -> None:
        """All that happens between two batches."""
        batch = self.batches[self.taken % len(self.batches)]
        self.optimizer.zero_grad()
        self.method.training_step(batch, self.taken).backward()
        if self.clip is not None:
            parameters = [p for p in self.method.parameters() if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        self.optimizer.step()
        if self.method.ema is not None:
            self.method.ema.update(self.method.segmentor)
        self.method.after_step()
        self.taken += 1


def fill_memories(method: torch.nn.Module) -> int:
    """Random unit vectors in every slot, as after some epochs; returns the bytes of the slots."""
    stored = 0
    generator = torch.Generator().manual_seed(0)
    for module in method.modules():
        if isinstance(module, ClassQueue):
            labels = module.slot_labels
            rows = torch.randn(len(labels), module.rows.shape[1], generator=generator)
            module.enqueue(F.normalize(rows, dim=1), labels)
        elif isinstance(module, RegionMemory):
            slots, dim = module.rows.shape[0] - 1, module.rows.shape[1]
            rows = torch.randn(slots, dim, generator=generator)
            place = torch.arange(slots)
            labels = place // module.images
            module.store(F.normalize(rows, dim=1), labels, place % module.images)
        else:
            continue
        stored += module.rows.numel() * module.rows.element_size()
    return stored


def step_times(trainings: dict[str, Training], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one step of each, round by round."""
    for training in trainings.values():
        for _ in range(2):
            training.step()
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    order, shuffler = list(trainings), random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            start = time.process_time()
            trainings[name].step()
            seconds[name].append(time.process_time() - start)
    return seconds


def peak(recipe: str, overrides: list[str]) -> dict[str, float]:
    """MiB of one training in a fresh process."""
    command = [sys.executable, __file__, "--child", recipe, *overrides]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(recipe: str, overrides: list[str]) -> None:
    """Print the growth of the resident set over a few steps, and the stored embeddings."""
    training = Training(recipe, overrides, 2)
    for _ in range(4):
        training.step()
    grown = process_memory.peak() - training.base
    print(json.dumps({"peak": grown / 2**20, "stored": training.stored / 2**20}))


def compare(arguments: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Overheads of all methods."""
    recipes = {name: f"{name}_{arguments.set}" for name in (TWIN, *arguments.methods)}
    trainings = {
        name: Training(recipe, overrides, arguments.batches) for name, recipe in recipes.items()
    }
    seconds = step_times(trainings, arguments.rounds)
    memory = {name: peak(recipe, overrides) for name, recipe in recipes.items()}
    found: dict[str, Any] = {}
    for name in recipes:
        ratios = [mine / base for mine, base in zip(seconds[name], seconds[TWIN], strict=True)]
        bare = memory[name]["peak"] - memory[name]["stored"]
        found[name] = {
            "seconds": round(statistics.median(seconds[name]), 4),
            "time_overhead": round(statistics.median(ratios) - 1, 4),
            "quartiles": [round(q - 1, 4) for q in statistics.quantiles(ratios)[::2]],
            "time_bar": TIME_BARS.get(name),
            "peak_mib": round(memory[name]["peak"], 1),
            "stored_mib": round(memory[name]["stored"], 1),
            "memory_overhead": round(bare / memory[TWIN]["peak"] - 1, 4),
            "memory_bar": MEMORY_BAR if name in TIME_BARS else None,
            "rounds": arguments.rounds,
            "overrides": arguments.override,
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("methods", nargs="+", help="names of methods, for example pico")
    parser.add_argument("--set", default="scenes", help="suffix of the recipes")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", type=int, default=3, help="different batches in memory")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    data = [] if arguments.data is None else [f"data.root={arguments.data}"]
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    found = compare(arguments, [*arguments.override, *data])
    results.setdefault(arguments.set, {}).update(found)
    results["machine"] = {
        "device": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
        "load": os.getloadavg()[0],
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

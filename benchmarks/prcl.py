"""Cost of PRCL's contrast term against the form with every score in memory.

    python benchmarks/prcl.py            # writes benchmarks/results/prcl_cpu.json; wants 6 GB
    python benchmarks/prcl.py --quick    # a small map, prints only

The scene: 4 labelled and 4 unlabelled images of the published PASCAL VOC crop, that is maps
(8, 256, 81, 81), 21 classes, 256 anchors a class, 512 negatives an anchor. One round is the whole
term, forward and backward to mean and variance maps: local prototypes, drawing, scores,
cross-entropy. "naive" is written here after the papers: a loop over the classes, negatives gathered
into (256, 512, 256) tensors, scores and gradients by autograd. It keeps the graphs of all classes
until the backward pass; to spare the machine it is timed with a backward pass a class, the same
operations, and its memory is measured with 8 of the 21 classes, a lower bound. "package" is the
term of the AAAI version, "package_journal" that of the journal version with global prototypes and
80 virtual negatives an anchor besides. Times are process CPU time of one thread; contestants take
turns, and a ratio is the median over rounds of the ratio within a round. Memory is the rise of the
peak resident set of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.methods.prcl_contrast import PRCLContrast, PRCLContrastConfig

CLASSES, DIM, IMAGES, ANCHORS, NEGATIVES = 21, 256, 8, 256, 512
TEMPERATURE, THRESHOLD = 100.0, 0.8
RESULT = Path(__file__).parent / "results" / "prcl_cpu.json"


class Scene:
    """Labels in blobs, every class in every image, most pixels unsure."""

    def __init__(self, side):
        g = torch.Generator().manual_seed(0)
        coarse = torch.rand(IMAGES, CLASSES, side // 6 + 1, side // 6 + 1, generator=g)
        self.labels = F.interpolate(coarse, size=(side, side), mode="bilinear").argmax(1)
        self.labels[torch.rand(self.labels.shape, generator=g) < 0.05] = 255
        self.logits = torch.randn(IMAGES, CLASSES, side, side, generator=g)
        shape = (IMAGES, DIM, side, side)
        self.mean = torch.randn(shape, generator=g).requires_grad_()
        self.variance = torch.randn(shape, generator=g).sigmoid_().requires_grad_()
        self.generator = generator_for("cpu", 0)


class Package:
    """The term as training uses it."""

    settings: ClassVar[dict] = {"prototype": "local", "virtual_negatives": 0}

    def __init__(self):
        config = PRCLContrastConfig(
            num_anchors=ANCHORS,
            num_negatives=NEGATIVES,
            temperature=TEMPERATURE,
            anchor_threshold=THRESHOLD,
            weight_schedule="constant",
            **self.settings,
        )
        self.generator = generator_for("cpu", 0)
        self.term = PRCLContrast(config, Task(CLASSES, 255, 1000), lambda purpose: self.generator)

    def round(self, scene):
        """Forward and backward pass; the loss."""
        output = SegOutput(scene.logits, scene.logits, (), scene.mean, scene.variance)
        batch = ContrastBatch(output, scene.labels, labelled=IMAGES // 2, step=0)
        loss = self.term(batch).total
        loss.backward()
        self.term.after_step()
        return loss.item()


class Journal(Package):
    """The term of the journal version."""

    settings: ClassVar[dict] = {"prototype": "global", "virtual_negatives": 4}


class Naive:
    """A loop over the classes, all scores in memory.

    Args:
        together: classes whose graphs are kept for one backward pass; the others are left out.
            None: all classes, with a backward pass each.
    """

    def __init__(self, together=None):
        self.together = together

    def round(self, scene):
        """Forward and backward pass; the loss."""
        rows = [part.permute(0, 2, 3, 1).reshape(-1, DIM) for part in (scene.mean, scene.variance)]
        means, variances = (part.detach().requires_grad_() for part in rows)
        labels = scene.labels.flatten()
        probability = scene.logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, CLASSES)
        present = [c for c in labels.unique().tolist() if c < CLASSES]
        pools = [(labels == c).nonzero()[:, 0] for c in present]
        prototypes = []
        with torch.no_grad():
            for pool in pools:
                precision = variances[pool].reciprocal()
                variance = precision.sum(0).reciprocal()
                prototypes.append((variance * (means[pool] * precision).sum(0), variance))
        terms = []
        for own, pool in enumerate(pools[: self.together]):
            hard = pool[probability[pool, present[own]] < THRESHOLD]
            others = [k for k in range(len(present)) if k != own]
            with torch.no_grad():
                anchor = hard[torch.randint(len(hard), (ANCHORS,), generator=scene.generator)]
                nearness = torch.stack([score(*prototypes[own], *prototypes[k]) for k in others])
                chance = (nearness / TEMPERATURE).softmax(0)
                amount = ANCHORS * NEGATIVES
                drawn = torch.multinomial(
                    chance, amount, replacement=True, generator=scene.generator
                )
                pixel = torch.empty(amount, dtype=torch.long)
                for place, k in enumerate(others):
                    at = (drawn == place).nonzero()[:, 0]
                    number = torch.randint(len(pools[k]), at.shape, generator=scene.generator)
                    pixel[at] = pools[k][number]
                shape = (ANCHORS, NEGATIVES, DIM)
                negative = [part[pixel].view(shape) for part in (means, variances)]
                every = [
                    torch.cat([p.expand(ANCHORS, 1, DIM), n], 1)
                    for p, n in zip(prototypes[own], negative, strict=True)
                ]
            logits = score(means[anchor][:, None], variances[anchor][:, None], *every)
            target = torch.zeros(ANCHORS, dtype=torch.long)
            term = F.cross_entropy(logits / TEMPERATURE, target) / len(present)
            if self.together is None:
                term.backward()
            terms.append(term if self.together else term.detach())
        loss = torch.stack(terms).sum()
        if self.together:
            loss.backward()
        torch.autograd.backward(rows, [means.grad, variances.grad])
        return loss.item()


def score(mean0, variance0, mean1, variance1):
    variance = variance0 + variance1
    difference = F.normalize(mean0, dim=-1) - F.normalize(mean1, dim=-1)
    return -0.5 * (difference.square() / variance + variance.log()).sum(-1)


MEMORY_CLASSES = 8
KINDS = {"naive": Naive, "package": Package, "package_journal": Journal}


def one_round(kind, scene):
    """CPU seconds and the loss."""
    scene.mean.grad = scene.variance.grad = None
    start = time.process_time()
    loss = kind.round(scene)
    return time.process_time() - start, loss


def times(side, rounds):
    scene, kinds = Scene(side), {name: kind() for name, kind in KINDS.items()}
    small = Scene(12)
    for kind in kinds.values():
        one_round(kind, small)
    found = [{name: one_round(k, scene) for name, k in kinds.items()} for _ in range(rounds)]
    return {
        "cpu_seconds": {
            name: round(statistics.median(row[name][0] for row in found), 3) for name in KINDS
        },
        "over_naive": {
            name: round(statistics.median(row[name][0] / row["naive"][0] for row in found), 4)
            for name in KINDS
        },
        "loss": {name: round(found[0][name][1], 4) for name in KINDS},
    }


def peak_mib(name, side):
    """Rise of the peak resident set over one round, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, str(side)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def measure_memory(name, side):
    one_round(KINDS[name](), Scene(12))  # the first use of every operation
    scene = Scene(side)
    kind = Naive(MEMORY_CLASSES) if name == "naive" else KINDS[name]()
    print(peak_growth(lambda: one_round(kind, scene)))


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = next((line for line in lines if line.startswith("model name")), ": unknown")
    return found.split(":", 1)[1].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", nargs=2, metavar=("KIND", "SIDE"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.quick:
        global ANCHORS, NEGATIVES
        ANCHORS, NEGATIVES = 16, 32
    if arguments.memory_of:
        name, side = arguments.memory_of
        measure_memory(name, int(side))
        return
    side = 24 if arguments.quick else 81
    report = {
        "environment": {
            "cpu": cpu_name(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "scene": {
            "maps": [IMAGES, DIM, side, side],
            "classes": CLASSES,
            "anchors_per_class": ANCHORS,
            "negatives_per_anchor": NEGATIVES,
        },
        **times(side, arguments.rounds),
    }
    if not arguments.quick:
        peaks = {name: peak_mib(name, side) for name in KINDS}
        report["naive_memory_of_classes"] = MEMORY_CLASSES
        report["extra_peak_mib"] = {name: round(peak, 1) for name, peak in peaks.items()}
        report["memory_over_naive"] = {
            name: round(peak / peaks["naive"], 4) for name, peak in peaks.items()
        }
    text = json.dumps(report, indent=2)
    print(text)
    if not arguments.quick:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

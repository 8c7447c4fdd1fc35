"""Cost of choosing anchors and filling the memory, against one loop per image and class.

    python benchmarks/sampling.py            # writes benchmarks/results/sampling_cpu.json
    python benchmarks/sampling.py --quick    # a quarter of the map, prints only

The scene is the one of the authors' Cityscapes setting: an embedding map (4, 256, 128, 256), 19
classes, 1,024 anchors, a queue of 5,000 entries per class that takes 10 pixels and one region per
class and image. The loop is written here after the published description: lists of positions by
`nonzero`, a permutation and an indexing of the map for every pair, a write to the ring for every
pair. Times are process CPU time of one thread; contestants take turns within a round, and a ratio
is the median over rounds of the ratio within a round. Memory is the rise of the peak resident set
of a fresh process. "forcing" operations are those after which the host has to wait for the device.
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
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

from opcount import OpCount
from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.losses import backends, pixel_info_nce
from pixelcontrast.losses.triton_launch import Launch
from pixelcontrast.memory import ClassQueue
from pixelcontrast.sampling import PixelPool, gather_pixels, region_means, select_keys

CLASSES, DIM, IMAGES, CAPACITY = 19, 256, 4, 5000
MAX_ANCHORS, MAX_VIEWS, PER_CLASS = 1024, 100, 10
RESULT = Path(__file__).parent / "results" / "sampling_cpu.json"


class Scene:
    """Labels in blobs, every class in every image, a fifth of the pixels mispredicted."""

    def __init__(self, height, width):
        g = torch.Generator().manual_seed(0)
        coarse = torch.rand(IMAGES, CLASSES, height // 8, width // 8, generator=g)
        self.labels = F.interpolate(coarse, size=(height, width), mode="bilinear").argmax(1)
        wrong = torch.rand(self.labels.shape, generator=g) < 0.2
        other = torch.randint(1, CLASSES, self.labels.shape, generator=g)
        self.predictions = torch.where(wrong, (self.labels + other) % CLASSES, self.labels)
        self.labels[torch.rand(self.labels.shape, generator=g) < 0.05] = 255
        raw = torch.randn(IMAGES, DIM, height, width, generator=g)
        self.embedding = F.normalize(raw, dim=1).requires_grad_()

    def pairs(self):
        """How many (image, class) pairs there are."""
        return sum(len(label.unique()) - 1 for label in self.labels)


class Loop:
    """One pass of Python for every image and class."""

    def __init__(self):
        self.rows = torch.zeros(CLASSES, CAPACITY, DIM)
        self.regions = torch.zeros(CLASSES, CAPACITY, DIM)
        self.pointer = [0] * CLASSES
        self.region_pointer = [0] * CLASSES

    def anchors(self, scene):
        """Embeddings and labels of the anchors."""
        features = scene.embedding.permute(0, 2, 3, 1).reshape(IMAGES, -1, DIM)
        labels, predictions = scene.labels.flatten(1), scene.predictions.flatten(1)
        kept = []
        for image in range(IMAGES):
            present = [c for c in labels[image].unique() if c != 255]
            kept.append([c for c in present if (labels[image] == c).nonzero().shape[0] > MAX_VIEWS])
        total = sum(len(classes) for classes in kept)
        n_view = min(MAX_ANCHORS // total, MAX_VIEWS)
        rows, ids = [], []
        for image in range(IMAGES):
            for c in kept[image]:
                hard = ((labels[image] == c) & (predictions[image] != c)).nonzero()
                easy = ((labels[image] == c) & (predictions[image] == c)).nonzero()
                number_hard, number_easy = hard.shape[0], easy.shape[0]
                if number_hard >= n_view / 2 and number_easy >= n_view / 2:
                    take = n_view // 2
                elif number_hard >= n_view / 2:
                    take = n_view - number_easy
                else:
                    take = number_hard
                hard = hard[torch.randperm(number_hard)[:take]]
                easy = easy[torch.randperm(number_easy)[: n_view - take]]
                index = torch.cat([hard, easy], dim=0)
                rows.append(features[image, index, :].squeeze(1))
                ids.append(c.expand(n_view))
        return torch.cat(rows), torch.stack(ids).flatten()

    @torch.no_grad()
    def remember(self, scene):
        """Write pixels and regions to the memory."""
        for image in range(IMAGES):
            features = scene.embedding[image].flatten(1)
            labels = scene.labels[image].flatten()
            for c in labels.unique():
                if c == 255:
                    continue
                label = int(c.item())
                positions = (labels == c).nonzero().squeeze(-1)
                mean = F.normalize(features[:, positions].mean(1), dim=0)
                self.regions[label, self.region_pointer[label] % CAPACITY] = mean
                self.region_pointer[label] += 1
                chosen = positions[torch.randperm(positions.shape[0])[:PER_CLASS]]
                slots = (self.pointer[label] + torch.arange(len(chosen))) % CAPACITY
                self.rows[label, slots] = features[:, chosen].T
                self.pointer[label] += len(chosen)


class Batched:
    """The package."""

    def __init__(self):
        self.queue = ClassQueue(CLASSES, CAPACITY, DIM)
        self.regions = ClassQueue(CLASSES, CAPACITY, DIM)
        self.generator = generator_for("cpu", 0)

    def anchors(self, scene):
        """Embeddings and labels of the anchors."""
        self.pool = PixelPool.build(
            scene.labels, scene.predictions, num_classes=CLASSES, generator=self.generator
        )
        chosen = self.pool.anchors(
            max_anchors=MAX_ANCHORS, max_views=MAX_VIEWS, generator=self.generator
        )
        return gather_pixels(scene.embedding, chosen.index), chosen.labels

    @torch.no_grad()
    def remember(self, scene):
        """Write pixels and regions to the memory."""
        kept = self.pool.per_class(PER_CLASS, generator=self.generator)
        self.queue.enqueue(gather_pixels(scene.embedding, kept.index), kept.labels)
        means = region_means(scene.embedding, scene.labels, num_classes=CLASSES)
        self.regions.enqueue(means.vectors, means.labels)


KINDS = {"loop": Loop, "batched": Batched}


def seconds(function):
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def one_round(kind, scene):
    """CPU milliseconds of each stage."""
    scene.embedding.grad = None
    choose, (rows, _) = seconds(lambda: kind.anchors(scene))
    upstream = torch.ones_like(rows)
    backward, _ = seconds(lambda: rows.backward(upstream))
    remember, _ = seconds(lambda: kind.remember(scene))
    scene.embedding.grad = None
    return {
        "choose_and_gather": 1e3 * choose,
        "backward": 1e3 * backward,
        "remember": 1e3 * remember,
        "total": 1e3 * (choose + backward + remember),
    }


def times(scene, repeats):
    kinds = {name: kind() for name, kind in KINDS.items()}
    for kind in kinds.values():
        one_round(kind, scene)
    rounds = [
        {name: one_round(kind, scene) for name, kind in kinds.items()} for _ in range(repeats)
    ]
    report = {
        name: {
            stage: round(statistics.median(r[name][stage] for r in rounds), 2)
            for stage in rounds[0][name]
        }
        for name in KINDS
    }
    report["batched_over_loop"] = {
        stage: round(
            statistics.median(r["batched"][stage] / max(r["loop"][stage], 1e-6) for r in rounds),
            4,
        )
        for stage in rounds[0]["loop"]
    }
    return report


def counted(counter):
    return {
        "operations": counter.total,
        "without_views": counter.kernels,
        "forcing": sum(counter.forcing.values()),
    }


def operations(scene):
    report = {}
    for name, kind in KINDS.items():
        side = kind()
        with OpCount() as choosing:
            rows, labels = side.anchors(scene)
        with OpCount() as backward:
            rows.sum().backward()
        with OpCount() as remembering:
            side.remember(scene)
        report[name] = {
            "choose_and_gather": counted(choosing),
            "backward": counted(backward),
            "remember_pixels_and_regions": counted(remembering),
        }
        scene.embedding.grad = None
    side = Batched()
    rows, labels = side.anchors(scene)
    side.remember(scene)
    few = ClassQueue(CLASSES, 50, DIM)
    for name, queue in (("in_batch", None), ("with_950_keys", few), ("with_the_queue", side.queue)):
        keys = () if queue is None else queue.keys()[:2]
        report[f"loss_{name}"] = loss_operations(rows, labels, keys)
    with OpCount() as pixels:
        kept = side.pool.per_class(PER_CLASS, generator=side.generator)
        side.queue.enqueue(gather_pixels(scene.embedding, kept.index), kept.labels)
        side.queue.keys()
    report["batched"]["remember_pixels"] = counted(pixels)
    for name in ("in_batch", "with_950_keys", "with_the_queue"):
        stages = (
            report["batched"]["choose_and_gather"],
            report[f"loss_{name}"],
            report["batched"]["remember_pixels"],
        )
        report[f"sampler_loss_and_queue_{name}"] = {
            key: sum(s[key] for s in stages) for key in stages[0]
        }
    return report


def loss_operations(rows, labels, keys):
    """Operations of the forward pass on the path a GPU takes, one for each launch of a kernel."""
    small = len(rows) * (len(rows) + (len(keys[0]) if keys else 0)) <= backends.SMALL["cuda"]
    with (
        mock.patch.object(backends, "fits", return_value=True),
        mock.patch.object(Launch, "__call__") as launch,
        OpCount() as loss,
    ):
        pixel_info_nce(
            rows, labels, *keys, include_anchors=True, backend="matrix" if small else "triton"
        )
    found = counted(loss)
    found["operations"] += launch.call_count
    found["without_views"] += launch.call_count
    return found


def selection(anchors=256):
    """CPU milliseconds an anchor of ranking a whole queue of unit vectors."""
    g = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(CLASSES * CAPACITY, DIM, generator=g), dim=1)
    labels = torch.arange(CLASSES).repeat_interleave(CAPACITY)
    rows, row_labels = keys[:: len(keys) // anchors][:anchors], labels[:: len(keys) // anchors]
    report = {"keys": len(keys)}
    for strategy in ("random", "hardest", "semi_hard"):
        spent, _ = seconds(
            lambda s=strategy: select_keys(
                rows, row_labels[:anchors], keys, labels, strategy=s, generator=g
            )
        )
        report[f"{strategy}_ms_per_anchor"] = round(1e3 * spent / anchors, 3)
    return report


def peak_mib(name, height, width):
    """Rise of the peak resident set over one round, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, str(height), str(width)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def measure_memory(name, height, width):
    one_round(KINDS[name](), Scene(16, 32))  # the first use of every operation
    scene, kind = Scene(height, width), KINDS[name]()
    print(peak_growth(lambda: one_round(kind, scene)))


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = next((line for line in lines if line.startswith("model name")), ": unknown")
    return found.split(":", 1)[1].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", nargs=3, metavar=("KIND", "HEIGHT", "WIDTH"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        name, height, width = arguments.memory_of
        measure_memory(name, int(height), int(width))
        return
    height, width = (64, 128) if arguments.quick else (128, 256)
    scene = Scene(height, width)
    report = {
        "environment": {
            "cpu": cpu_name(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "scene": {
            "embedding": [IMAGES, DIM, height, width],
            "classes": CLASSES,
            "pairs_of_image_and_class": scene.pairs(),
            "anchors": MAX_ANCHORS,
            "pixels_per_class_and_image": PER_CLASS,
        },
        "cpu_ms": times(scene, arguments.rounds),
        "operations": operations(scene),
        "extra_peak_mib": {name: round(peak_mib(name, height, width), 1) for name in KINDS},
        "selection": selection(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if not arguments.quick:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

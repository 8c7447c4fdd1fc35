"""Cost of U2PL's contrast term against the loop over classes it replaces, on one CPU thread.

    python benchmarks/u2pl.py            # PASCAL VOC setting; writes results/u2pl_cpu.json
    python benchmarks/u2pl.py --quick    # a small setting, prints only

Both sides do one step's work: split by entropy, ranks, centres, keys into full queues, anchors,
negatives, loss and gradient of the student's embeddings. The loop does it the way the released code
does, with its faults mended and the same cap on keys: one class after the other, boolean indexing,
queues joined and cut, and the vectors of all negatives gathered before they are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.methods.u2pl_contrast import (
    U2PLContrast,
    U2PLContrastConfig,
    shared_threshold,
)
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import pseudo_labels

RESULT = Path(__file__).parent / "results" / "u2pl_cpu.json"
LABELLED, IMAGES, IGNORE = 4, 8, 255
SETTINGS = {
    "voc": {
        "classes": 21, "dim": 256, "size": 129, "crop": 513, "queue": 30_000, "cap": 4000,
        "anchors": 256, "negatives": 50,
    },
    "quick": {
        "classes": 7, "dim": 32, "size": 33, "crop": 129, "queue": 500, "cap": 100,
        "anchors": 64, "negatives": 50,
    },
}  # fmt: skip


class Scene:
    """Blocks of classes, a teacher that is mostly right, and features that belong to the class."""

    def __init__(self, setting):
        generator = torch.Generator().manual_seed(0)
        classes, size, crop, dim = (setting[k] for k in ("classes", "size", "crop", "dim"))
        blocks = torch.randint(0, classes, (IMAGES, 6, 6), generator=generator)
        small = resize_labels(blocks, (size, size))
        noise = torch.randn(IMAGES, classes, size, size, generator=generator)
        self.logits = 2.5 * F.one_hot(small, classes).permute(0, 3, 1, 2) + noise
        centres = torch.randn(classes, dim, generator=generator)
        maps = centres[small].permute(0, 3, 1, 2)
        shape = (IMAGES, dim, size, size)
        self.student = maps + torch.randn(shape, generator=generator)
        self.teacher = maps + torch.randn(shape, generator=generator)
        self.student.requires_grad_()
        valid = torch.ones(IMAGES - LABELLED, crop, crop, dtype=torch.bool)
        pseudo = pseudo_labels(self.logits[LABELLED:], valid, entropy=True)
        self.entropy, guessed = pseudo.entropy, pseudo.labels
        self.labels = torch.cat([resize_labels(blocks[:LABELLED], (crop, crop)), guessed])


class Loop:
    """The released form, class after class."""

    def __init__(self, setting):
        self.setting = setting
        keys = torch.Generator().manual_seed(1)
        self.bank = [
            torch.randn(setting["queue"], setting["dim"], generator=keys)
            for _ in range(setting["classes"])
        ]

    def step(self, scene):
        """L_c, attached to the student's embeddings."""
        setting = self.setting
        size = (setting["size"], setting["size"])
        threshold = float(np.percentile(scene.entropy.numpy().flatten(), 80))
        reliable = resize_labels(scene.entropy < threshold, size)
        labels = resize_labels(scene.labels, size)
        given = torch.ones(LABELLED, *size, dtype=torch.bool)
        trusted = torch.cat([given, reliable])
        probability = scene.logits.softmax(1)
        ranks = probability.argsort(1, descending=True).argsort(1)
        student = scene.student.permute(0, 2, 3, 1)
        teacher = scene.teacher.permute(0, 2, 3, 1)
        high = min(20, setting["classes"])
        anchors, centres = [], []
        for c in range(setting["classes"]):
            own = (labels == c) & trusted
            anchors.append(student[own & (probability[:, c] > 0.3)])
            centres.append(teacher[own].mean(0))
            rank = ranks[:, c]
            hard = (labels[:LABELLED] != c) & (rank[:LABELLED] < 3)
            unsure = ~reliable & (rank[LABELLED:] >= 3) & (rank[LABELLED:] < high)
            keys = teacher[torch.cat([hard, unsure])]
            keys = keys[torch.randperm(len(keys))[: setting["cap"]]].detach()
            self.bank[c] = torch.cat([self.bank[c], keys])[-setting["queue"] :]
        loss = scene.student.new_zeros(())
        for c in range(setting["classes"]):
            if not len(anchors[c]):
                continue
            index = torch.randint(len(anchors[c]), (setting["anchors"],))
            rows = anchors[c][index]
            with torch.no_grad():
                bank = self.bank[c].clone()
                chosen = torch.randint(len(bank), (setting["anchors"] * setting["negatives"],))
                negative = bank[chosen].view(setting["anchors"], setting["negatives"], -1)
                positive = centres[c].expand(setting["anchors"], 1, -1)
                every = torch.cat([positive, negative], 1)
            logits = torch.cosine_similarity(rows[:, None], every, dim=2)
            target = torch.zeros(setting["anchors"], dtype=torch.long)
            loss = loss + F.cross_entropy(logits / 0.5, target)
        return loss / setting["classes"]


class Batched:
    """The package."""

    def __init__(self, setting):
        config = U2PLContrastConfig(
            embedding=EmbeddingConfig(dim=setting["dim"], normalise=False),
            weight=1.0,
            anchors=setting["anchors"],
            negatives=setting["negatives"],
            key_cap=setting["cap"],
            queue=setting["queue"],
        )
        self.turn = 0
        self.term = U2PLContrast(
            config, Task(setting["classes"], IGNORE, total_steps=1), self.random
        )
        keys = torch.Generator().manual_seed(1)
        for c in range(setting["classes"]):
            rows = torch.randn(setting["queue"], setting["dim"], generator=keys)
            self.term.queue.enqueue(F.normalize(rows, dim=1), torch.full((len(rows),), c))

    def random(self, purpose):
        """The generator for one purpose in this step."""
        return generator_for("cpu", purpose, self.turn)

    def step(self, scene):
        """L_c, attached to the student's embeddings."""
        self.turn += 1
        valid = torch.ones_like(scene.entropy, dtype=torch.bool)
        reliable = scene.entropy < shared_threshold(scene.entropy, valid, 80.0)
        output = SegOutput(scene.logits, scene.logits, embedding=scene.student)
        batch = ContrastBatch(
            student=output,
            labels=scene.labels,
            labelled=LABELLED,
            step=0,
            teacher=SegOutput(scene.logits, scene.logits, embedding=scene.teacher),
            trusted=reliable,
            unreliable=~reliable,
        )
        return self.term(batch).terms["contrast"]


KINDS = {"loop": Loop, "batched": Batched}


def one_round(kind, scene):
    """CPU seconds of forward and backward pass, and the loss."""
    scene.student.grad = None
    start = time.process_time()
    loss = kind.step(scene)
    middle = time.process_time()
    loss.backward()
    return middle - start, time.process_time() - middle, loss.item()


def measure(name, setting, rounds, channels_last):
    """Medians over rounds, in a process of its own, and the rise of its peak memory."""
    scene, kind = Scene(setting), KINDS[name](setting)
    if channels_last:
        for part in ("student", "teacher"):
            maps = getattr(scene, part).detach().to(memory_format=torch.channels_last)
            setattr(scene, part, maps.requires_grad_(part == "student"))
    one_round(kind, scene)
    taken = []
    growth = peak_growth(lambda: taken.extend(one_round(kind, scene) for _ in range(rounds)))
    forward, backward, loss = (statistics.median(part) for part in zip(*taken, strict=True))
    return {
        "forward_s": round(forward, 3),
        "backward_s": round(backward, 3),
        "total_s": round(statistics.median(f + b for f, b, _ in taken), 3),
        "loss": round(loss, 4),
        "extra_peak_mib": round(growth),
    }


def apart(name, layout, quick, rounds):
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--side", name, layout, "--rounds", str(rounds)]
    command += ["--quick"] if quick else []
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def cpu_name():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = next((line for line in lines if line.startswith("model name")), ": unknown")
    return found.split(":", 1)[1].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", nargs=2, metavar=("KIND", "LAYOUT"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = SETTINGS["quick" if arguments.quick else "voc"]
    if arguments.side:
        name, layout = arguments.side
        found = measure(name, setting, arguments.rounds, layout == "channels_last")
        print(json.dumps(found))
        return
    report = {
        "environment": {
            "cpu": cpu_name(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "setting": {"labelled": LABELLED, "images": IMAGES, **setting},
    }
    for layout in ("channels_first", "channels_last"):
        sides = {name: apart(name, layout, arguments.quick, arguments.rounds) for name in KINDS}
        times = [sides[name]["total_s"] for name in ("batched", "loop")]
        report[layout] = {**sides, "batched_over_loop": round(times[0] / max(times[1], 1e-9), 3)}
    text = json.dumps(report, indent=2)
    print(text)
    if not arguments.quick:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

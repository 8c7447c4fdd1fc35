"""Cost of the confusion matrix and of the tail of a validation step.

    python benchmarks/metrics.py            # writes benchmarks/results/metrics_cpu.json
    python benchmarks/metrics.py --quick    # fewer rounds, prints only

One 1024 x 2048 frame of 19 classes, 5 % of it unlabelled, drawn regions with noisy borders. Times
are process CPU time of one thread; contestants take turns within a round, and a ratio is the median
over rounds of the ratio within a round. Memory is the peak above the resident size before the call,
in a fresh process after a small warm-up.
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

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.nn import functional as F

from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.evaluation import ConfusionMatrix

HEIGHT, WIDTH, CLASSES, STRIDE = 1024, 2048, 19, 8
RESULTS = Path(__file__).parent / "results" / "metrics_cpu.json"


def drawn(height=HEIGHT, width=WIDTH):
    """Scores at a stride of 8, and a ground truth that agrees with them for the most part."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, CLASSES, 9, 17, generator=generator) * 4
    size = (height // STRIDE, width // STRIDE)
    smooth = F.interpolate(coarse, size, mode="bicubic")
    logits = smooth + 0.3 * torch.randn(1, CLASSES, *size, generator=generator)
    truth = F.interpolate(smooth, (height, width), mode="bilinear").argmax(1)
    holes = F.interpolate(torch.rand(1, 1, 40, 80, generator=generator), (height, width))[:, 0]
    return logits, truth.masked_fill_(holes < 0.05, 255)


def naive_labels(logits, size):
    return F.interpolate(logits, size, mode="bilinear").argmax(1)


def naive_tail(logits, target):
    """The usual way: full-size scores, argmax, the valid pixels picked out, one bincount."""
    labels = naive_labels(logits, target.shape[-2:])
    valid = target != 255
    codes = target[valid] * CLASSES + labels[valid]
    return torch.bincount(codes, minlength=CLASSES**2).view(CLASSES, CLASSES)


def tiled_tail(logits, target):
    confusion = ConfusionMatrix(CLASSES)
    confusion.update_from_logits(logits, target)
    return confusion.counts


def own_counts(labels, target):
    confusion = ConfusionMatrix(CLASSES)
    confusion.update(labels, target)
    return confusion.counts


def deterministic(call):
    def run(*arguments):
        torch.use_deterministic_algorithms(True)
        try:
            return call(*arguments)
        finally:
            torch.use_deterministic_algorithms(False)

    return run


def torchmetrics_counts(validate):
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255, validate_args=validate)

    def run(labels, target):
        metric.reset()
        metric.update(labels, target)
        return metric.confmat

    return run


def compare(contestants, rounds):
    """CPU milliseconds of each contestant in each round; they take turns.

    Args:
        contestants: calls by name, and how often each is repeated in a round; short ones are, so
            that a round measures them and not the clock.
        rounds: how often everybody takes a turn.
    """
    times = {name: [] for name in contestants}
    for call, _ in contestants.values():
        call()
    for _ in range(rounds):
        for name, (call, repeats) in contestants.items():
            strict = "deterministic" in name
            torch.use_deterministic_algorithms(strict)
            begin = time.process_time()
            for _ in range(repeats):
                call()
            times[name].append(1e3 * (time.process_time() - begin) / repeats)
            torch.use_deterministic_algorithms(False)
    return times


def ratio(times, name, reference):
    pairs = zip(times[name], times[reference], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 4)


def peak_mib(case):
    """Extra peak memory of one case, in a process of its own."""
    command = [sys.executable, __file__, "--memory", case]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measure_memory(case):
    logits, target = drawn()
    labels, small = naive_labels(logits, target.shape[-2:]).byte(), target.byte()
    calls = {
        "naive tail": lambda scores, truth, _: naive_tail(scores, truth.long()),
        "tiled tail": lambda scores, truth, _: tiled_tail(scores, truth),
        "confusion": lambda _, truth, guess: own_counts(guess, truth),
        "confusion, deterministic": lambda _, truth, guess: deterministic(own_counts)(guess, truth),
    }
    call = calls[case]
    tiny = drawn(64, 128)
    call(tiny[0], tiny[1].byte(), naive_labels(tiny[0], (64, 128)).byte())
    print(json.dumps(round(peak_growth(lambda: call(logits, small, labels)), 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        measure_memory(options.memory)
        return
    rounds = 3 if options.quick else 11
    logits, target = drawn()
    labels = naive_labels(logits, (HEIGHT, WIDTH))
    labels8, target8 = labels.byte(), target.byte()
    default, unchecked = torchmetrics_counts(True), torchmetrics_counts(False)
    expected = default(labels, target)
    assert torch.equal(own_counts(labels8, target8), expected)
    assert torch.equal(own_counts(labels, target), expected)
    assert torch.equal(tiled_tail(logits, target8), naive_tail(logits, target))

    counting = compare(
        {
            "torchmetrics default": (lambda: default(labels, target), 1),
            "torchmetrics validate_args=False": (lambda: unchecked(labels, target), 1),
            "ours": (lambda: own_counts(labels8, target8), 10),
            "ours, int64 labels": (lambda: own_counts(labels, target), 5),
            "ours, deterministic": (lambda: own_counts(labels8, target8), 10),
        },
        rounds,
    )
    part = (slice(None), slice(256), slice(512))
    strict = compare(
        {
            "torchmetrics, deterministic": (lambda: unchecked(labels[part], target[part]), 1),
            "ours, deterministic": (lambda: own_counts(labels8[part], target8[part]), 10),
        },
        3,
    )
    tail = compare(
        {
            "naive": (lambda: naive_tail(logits, target), 1),
            "ours": (lambda: tiled_tail(logits, target8), 1),
        },
        rounds,
    )
    memory = {
        case: peak_mib(case)
        for case in ("naive tail", "tiled tail", "confusion", "confusion, deterministic")
    }
    report = {
        "frame": f"{HEIGHT}x{WIDTH}, {CLASSES} classes, scores at stride {STRIDE}",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "rounds": rounds,
        "confusion_ms": {name: round(min(values), 2) for name, values in counting.items()},
        "confusion_ratio": {
            "to torchmetrics default": ratio(counting, "ours", "torchmetrics default"),
            "to validate_args=False": ratio(counting, "ours", "torchmetrics validate_args=False"),
            "int64 to validate_args=False": ratio(
                counting, "ours, int64 labels", "torchmetrics validate_args=False"
            ),
            "deterministic to usual": ratio(counting, "ours, deterministic", "ours"),
        },
        "deterministic_256x512_ms": {name: round(min(v), 3) for name, v in strict.items()},
        "tail_ms": {name: round(min(values), 1) for name, values in tail.items()},
        "tail_ratio": ratio(tail, "ours", "naive"),
        "extra_peak_mib": memory,
        "tail_memory_ratio": round(memory["tiled tail"] / memory["naive tail"], 4),
        "equal_counts": True,
    }
    print(json.dumps(report, indent=2))
    if not options.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

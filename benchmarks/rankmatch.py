"""Cost of RankMatch's rank loss against the form of the papers' description, on one CPU thread.

    python benchmarks/rankmatch.py            # writes benchmarks/results/rankmatch_cpu.json
    python benchmarks/rankmatch.py --quick    # a small map, prints only

The scene: features (2, 256, 81, 81) of a weak and a strong view, 64 landmarks. One round selects
the landmarks and computes loss and gradient of the strong features. "naive" keeps all
similarities and takes the largest anew for every landmark, forms a softmax over the landmarks and
gathers the chance of every order from a view (B, h, w, k!, N); it exists for k = 4 alone (k = 8
has 40,320 orders). "package" is `select_landmarks` and `rank_consistency`. Times are process CPU
time; contestants take turns, and a ratio is the median over rounds of the ratio within a round.
Memory is the rise of the peak resident set of a fresh process. "mixing" is the memory of feature
CutMix per image at crop 801, output stride 16.
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
from itertools import permutations
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.losses import rank_consistency
from pixelcontrast.methods.rankmatch import mixed_features
from pixelcontrast.sampling import select_landmarks

IMAGES, WIDTH, LANDMARKS = 2, 256, 64
RESULT = Path(__file__).parent / "results" / "rankmatch_cpu.json"


class Scene:
    """Features after a ReLU, small enough that no softmax saturates."""

    def __init__(self, side):
        g = torch.Generator().manual_seed(0)
        shape = (IMAGES, WIDTH, side, side)
        self.weak = 0.1 * torch.randn(shape, generator=g).relu()
        noise = 0.03 * torch.randn(shape, generator=g)
        self.strong = (self.weak + noise).relu().requires_grad_()
        self.first = torch.tensor([0, 5])


def naive(scene, k=4):
    """The loss with everything in memory."""
    height, width = scene.weak.shape[2:]
    with torch.no_grad():
        rows = F.normalize(scene.weak.flatten(2), dim=1).transpose(1, 2)
        chosen = [scene.first]
        stored = torch.zeros(IMAGES, rows.shape[1], LANDMARKS)
        for i in range(LANDMARKS - 1):
            vector = rows.gather(1, chosen[-1][:, None, None].expand(-1, 1, WIDTH))
            stored[:, :, i] = torch.bmm(rows, vector.transpose(1, 2))[:, :, 0].abs()
            largest = stored[:, :, : i + 1].max(2).values
            largest.scatter_(1, torch.stack(chosen, 1), torch.inf)
            chosen.append(largest.argmin(1))
        index = torch.stack(chosen, 1)
    shares = []
    for features in (scene.weak, scene.strong):
        flat = features.flatten(2)
        vectors = flat.gather(2, index[:, None].expand(-1, WIDTH, -1))
        logits = torch.einsum("bfp,bfn->bpn", flat, vectors)
        shares.append(logits.softmax(2).view(IMAGES, height, width, LANDMARKS))
    top = shares[0].topk(k, dim=3).indices
    orders = torch.tensor(list(permutations(range(k))))
    at = top[..., orders]
    ranks = []
    for share in shares:
        wide = share[..., None, :].expand(-1, -1, -1, len(orders), -1)
        placed = wide.gather(4, at)
        left = placed.flip(4).cumsum(4).flip(4)
        ranks.append((placed / (left + 1e-10)).prod(4))
    divergence = ranks[0] * (ranks[0].log() - ranks[1].log())
    return divergence.sum(3).mean()


def package(scene, k=4):
    """The loss as training uses it."""
    found = select_landmarks(scene.weak, LANDMARKS, scene.first)
    return rank_consistency(scene.strong, scene.weak, found.index, present=found.present, k=k).loss


def package_8(scene):
    """With eight landmarks ranked."""
    return package(scene, k=8)


KINDS = {"naive": naive, "package": package, "package_k8": package_8}


def one_round(kind, scene):
    """CPU seconds and the loss."""
    scene.strong.grad = None
    start = time.process_time()
    loss = kind(scene)
    loss.backward()
    return time.process_time() - start, loss.item()


def times(side, rounds):
    scene, small = Scene(side), Scene(12)
    for kind in KINDS.values():
        one_round(kind, small)
    found = [{name: one_round(kind, scene) for name, kind in KINDS.items()} for _ in range(rounds)]
    return {
        "cpu_seconds": {
            name: round(statistics.median(row[name][0] for row in found), 3) for name in KINDS
        },
        "over_naive": {
            name: round(statistics.median(row[name][0] / row["naive"][0] for row in found), 4)
            for name in KINDS
        },
        "loss": {name: round(found[0][name][1], 6) for name in KINDS},
    }


def mix_801():
    """Feature CutMix of two images of 51 x 51 features."""
    keep = torch.ones(IMAGES, 801, 801, dtype=torch.bool)
    keep[:, 100:400, 200:600] = False
    features = torch.rand(IMAGES, WIDTH, 51, 51)
    mixed_features(features[:, :, :9, :9], keep)
    return peak_growth(lambda: mixed_features(features, keep)) / IMAGES


def rise(name, side):
    """Rise of the peak over one round."""
    one_round(KINDS[name], Scene(12))  # the first use of every operation
    scene = Scene(side)
    return peak_growth(lambda: one_round(KINDS[name], scene))


def apart(name, side):
    """Memory in MiB, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, str(side)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return round(float(result.stdout), 1)


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
    if arguments.memory_of:
        name, side = arguments.memory_of
        print(mix_801() if name == "mixing" else rise(name, int(side)))
        return
    side = 24 if arguments.quick else 81
    report = {
        "environment": {
            "cpu": cpu_name(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "scene": {"maps": [IMAGES, WIDTH, side, side], "landmarks": LANDMARKS},
        **times(side, arguments.rounds),
    }
    if not arguments.quick:
        peaks = {name: apart(name, side) for name in KINDS}
        report["extra_peak_mib"] = peaks
        report["memory_over_naive"] = {n: round(p / peaks["naive"], 4) for n, p in peaks.items()}
        report["extra_peak_mib_at_51"] = apart("package", 51)
        report["mixing_mib_per_image"] = apart("mixing", 0)
    text = json.dumps(report, indent=2)
    print(text)
    if not arguments.quick:
        RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()

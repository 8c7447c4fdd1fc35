"""Cost of full k-means against faiss, from the same start.

    python benchmarks/kmeans.py            # writes benchmarks/results/kmeans_cpu.json
    python benchmarks/kmeans.py --quick    # a tenth of the rows, prints only

One million feature vectors of width 128 and unit length, drawn around 40 directions, 27 clusters,
20 iterations, all rows used. Times are process CPU time of one thread; the two take turns, and the
ratio is the median over rounds of the ratio within a round. Memory is the peak above the resident
size before the call, in a fresh process after a small warm-up. faiss: `pip install faiss-cpu`.
"""

from __future__ import annotations

import argparse
import ctypes
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
import torch.nn.functional as F

from pixelcontrast.core.process_memory import peak_growth
from pixelcontrast.memory import lloyd

ROWS, DIM, CLUSTERS, ITERATIONS = 1_000_000, 128, 27, 20
RESULTS = Path(__file__).parent / "results" / "kmeans_cpu.json"


def drawn(rows):
    """Rows around directions of unequal shares, made in parts to keep the peak low."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(40, DIM, generator=generator), dim=1)
    shares = torch.rand(40, generator=generator) ** 2 + 0.01
    features = torch.empty(rows, DIM)
    for part in features.split(50_000):
        which = torch.multinomial(shares, len(part), replacement=True, generator=generator)
        torch.randn(part.shape, generator=generator, out=part)
        part.mul_(0.09).add_(centres[which])
        part.div_(part.norm(dim=1, keepdim=True))
    return features


def ours(features, start):
    return lloyd(features, start, ITERATIONS).means


def with_faiss(features, start):
    import faiss

    faiss.omp_set_num_threads(1)
    search = faiss.Kmeans(
        DIM, CLUSTERS, niter=ITERATIONS, max_points_per_centroid=len(features), seed=1
    )
    search.train(features.numpy(), init_centroids=start.numpy())
    return torch.from_numpy(search.centroids)


CONTESTANTS = {"ours": ours, "faiss": with_faiss}


def seconds(call, *arguments):
    begin = time.process_time()
    found = call(*arguments)
    return time.process_time() - begin, found


def peak_mib(name, rows):
    """Extra peak memory of one of the two, in a process of its own."""
    command = [sys.executable, __file__, "--memory", name, "--rows", str(rows)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measure_memory(name, rows):
    features = drawn(rows)
    start = features[:CLUSTERS].clone()
    CONTESTANTS[name](features[:5000].clone(), start)
    ctypes.CDLL(None).malloc_trim(0)  # what drawing the rows left free would hide what comes
    print(json.dumps(round(peak_growth(lambda: CONTESTANTS[name](features, start)), 2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        measure_memory(options.memory, options.rows)
        return
    import faiss

    rows, rounds = (ROWS // 10, 3) if options.quick else (ROWS, 3)
    memory = {name: peak_mib(name, rows) for name in CONTESTANTS}
    features = drawn(rows)
    start = features[:CLUSTERS].clone()
    for call in CONTESTANTS.values():
        call(features[:5000].clone(), start)
    times, centroids = {name: [] for name in CONTESTANTS}, {}
    for _ in range(rounds):
        for name, call in CONTESTANTS.items():
            spent, centroids[name] = seconds(call, features, start)
            times[name].append(spent)
    pairs = zip(times["ours"], times["faiss"], strict=True)
    apart = (centroids["ours"] - centroids["faiss"]).abs().max()
    report = {
        "problem": f"{rows} x {DIM}, {CLUSTERS} clusters, {ITERATIONS} iterations",
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "rounds": rounds,
        "cpu_seconds": {name: [round(t, 2) for t in values] for name, values in times.items()},
        "time_ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "extra_peak_mib": memory,
        "largest_difference_of_centroids": float(f"{float(apart):.2g}"),
    }
    print(json.dumps(report, indent=2))
    if not options.quick:
        RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What boundary and feature metrics add to the scoring of a run.

    python benchmarks/evaluation_cost.py runs/NAME --data FOLDER [--out FILE]

Process CPU time of one thread on the validation split of a trained run: the plain scores, then each
addition alone, in turns; medians over the rounds. Memory is the peak resident size of a fresh
process that does nothing but one such evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

CASES = {
    "plain": {"boundary": None, "features": None},
    "boundary": {"boundary": 3.0, "features": None},
    "features": {"boundary": None},
    "both": {},
}


def score(run, data, case):
    """CPU seconds of one evaluation."""
    import torch

    from pixelcontrast.engine.folder import RunFolder
    from pixelcontrast.engine.scoring import score_run

    torch.set_num_threads(1)
    started = time.process_time()
    outcome = score_run(RunFolder(run), data=data, **CASES[case])
    return time.process_time() - started, outcome


def peak_memory(run, data, case):
    """MiB of a process that evaluates once."""
    command = [sys.executable, __file__, str(run), "--data", str(data), "--once", case]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.splitlines()[-1])


def pictures(run, data):
    """CPU seconds of the points in the plane, with and without t-SNE."""
    from pixelcontrast.engine.embedding import embedding_pictures

    _, outcome = score(run, data, "features")
    started = time.process_time()
    embedding_pictures(outcome.samples)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--once", choices=CASES)
    args = parser.parse_args()
    if args.once:
        score(args.run, args.data, args.once)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    score(args.run, args.data, "both")  # imports and file cache
    seconds = {case: [] for case in CASES}
    for _ in range(args.rounds):
        for case, found in seconds.items():
            found.append(score(args.run, args.data, case)[0])
    _, outcome = score(args.run, args.data, "both")
    result = {
        "cpu": platform.processor() or platform.machine(),
        "images": len(outcome.images),
        "pixels": sum(outcome.scores.pixels),
        "layers": {layer.layer: layer.width for layer in outcome.features},
        "cpu_seconds": {case: round(statistics.median(v), 2) for case, v in seconds.items()},
        "of_these_pictures": round(pictures(args.run, args.data), 2),
        "peak_mib": {c: round(peak_memory(args.run, args.data, c)) for c in ("plain", "both")},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

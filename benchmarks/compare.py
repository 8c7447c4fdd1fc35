"""Trains recipes over several seeds and stores mean and spread, each beside its supervised twin.

    python benchmarks/compare.py camvid_small --data CAMVID --seeds 0 1 2
    python benchmarks/compare.py scenes --seeds 0 1 2

trains `supervised_<set>` and `pico_<set>` with every seed into runs/compare (finished runs are
kept, broken ones resumed) and writes benchmarks/results/<set>.json. Scores are those of the best
validation checkpoint, on the validation split that chose it and on the test split that did not.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.scoring import score_run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("set", help="suffix of the recipes, for example camvid_small")
    parser.add_argument("--methods", nargs="+", default=["supervised", "pico"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()

    folders = {}
    for seed in arguments.seeds:
        for method in arguments.methods:
            recipe = f"{method}_{arguments.set}"
            out = arguments.runs / f"{recipe}-seed{seed}"
            folders[method, seed] = run(recipe, seed, out, arguments.data, arguments.override)
    first = next(iter(folders.values()))
    methods = {
        method: summarise([folders[method, seed] for seed in arguments.seeds])
        for method in arguments.methods
    }
    results = {
        "set": arguments.set,
        "seeds": arguments.seeds,
        "hardware": first.read_record()["hardware"],
        "versions": first.read_record()["versions"],
        "methods": methods,
        "differences": differences(methods, arguments.methods[0]),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{arguments.set}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["differences"], indent=2))
    print(path)


def run(recipe: str, seed: int, out: Path, data: Path | None, overrides: list[str]) -> RunFolder:
    """Train, or go on with, one run; through the command line, as a user would."""
    folder = RunFolder(out)
    if folder.read_record().get("status") == "finished":
        return folder
    command = [sys.executable, "-m", "pixelcontrast", "train", recipe, f"seed={seed}"]
    command += ["--out", str(out), *overrides]
    if data is not None:
        command.append(f"data.root={data}")
    command.append("--resume" if folder.resumable else "--force")
    subprocess.run(command, check=True)
    return folder


def summarise(folders: list[RunFolder]) -> dict[str, object]:
    """Scores of one method over its seeds."""
    rows = []
    for folder in folders:
        record = folder.read_record()
        scores = {split: score_run(folder, split=split).scores for split in ("val", "test")}
        rows.append(
            {
                "seed": record["seed"],
                "step": record["best"]["step"],
                "seconds": record["seconds"],
                "commit": record["git"].get("commit"),
                "val_miou": scores["val"].miou,
                "test_miou": scores["test"].miou,
                "test_iou": dict(
                    zip(record["dataset"]["classes"], scores["test"].iou, strict=True)
                ),
            }
        )
    return {
        "runs": rows,
        **{
            f"{key}_{name}": function([row[key] for row in rows])
            for key in ("val_miou", "test_miou")
            for name, function in (("mean", statistics.fmean), ("std", spread))
        },
    }


def spread(values: list[float]) -> float | None:
    """Standard deviation over the seeds; None for a single one."""
    return statistics.stdev(values) if len(values) > 1 else None


def differences(methods: dict[str, dict], base: str) -> dict[str, dict[str, float | None]]:
    """Mean difference to the first method over equal seeds, with its standard error."""
    found = {}
    for name, method in methods.items():
        if name == base:
            continue
        for key in ("val_miou", "test_miou"):
            pairs = zip(method["runs"], methods[base]["runs"], strict=True)
            deltas = [row[key] - twin[key] for row, twin in pairs]
            error = spread(deltas)
            found[f"{name} - {base}, {key}"] = {
                "mean": statistics.fmean(deltas),
                "standard_error": None if error is None else error / math.sqrt(len(deltas)),
            }
    return found


if __name__ == "__main__":
    main()

"""Trains recipes over several seeds and stores mean and spread, each beside its supervised twin.

    python benchmarks/compare.py camvid_small --data CAMVID --seeds 0 1 2
    python benchmarks/compare.py scenes --seeds 0 1 2

trains `supervised_<set>` and `pico_<set>` with every seed into runs/compare (finished runs are
kept, broken ones resumed), writes benchmarks/results/<set>.json and prints a table. Scores are
those of the best validation checkpoint, on the validation split that chose it and on the test split
that did not; beside them the test score of the trained network at the last step, which no split
has chosen, the best validation score of every network of the method (student, average or teacher)
and alignment and uniformity of the classifier's input on the validation split.
Differences are to the first method, paired by seed. `--report` also writes the page that shows the
runs side by side.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pixelcontrast.data import build_eval_loader
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.predict import load
from pixelcontrast.engine.scoring import score_run
from pixelcontrast.engine.sources import open_data
from pixelcontrast.evaluation import evaluate
from pixelcontrast.report import write_report

RESULTS = Path(__file__).parent / "results"
SHOWN = (
    "val_miou",
    "test_miou",
    "test_miou_end",
    "val_alignment",
    "val_uniformity",
    "val_uniformity_1",
)
"""What methods are compared by; A lower, all others higher is better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("set", help="suffix of the recipes, for example camvid_small")
    parser.add_argument("--methods", nargs="+", default=["supervised", "pico"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/compare"))
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="JSON [benchmarks/results/SET.json]")
    parser.add_argument("--report", type=Path, help="HTML page about all runs")
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
        "overrides": arguments.override,
        "hardware": first.read_record()["hardware"],
        "versions": first.read_record()["versions"],
        "methods": methods,
        "differences": differences(methods, arguments.methods[0]),
    }
    path = arguments.out or RESULTS / f"{arguments.set}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    print(path)
    if arguments.report:
        print(write_report([folder.root for folder in folders.values()], arguments.report))


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
        val = json.loads((folder.evaluation("val") / "scores.json").read_text())
        test = score_run(folder, split="test", features=None)
        names = record["dataset"]["classes"]
        rows.append(
            {
                "seed": record["seed"],
                "step": record["best"]["step"],
                "network": record["best"]["which"],
                "seconds": record["seconds"],
                "commit": record["git"].get("commit"),
                "val_miou": val["scores"]["miou"],
                "test_miou": test.scores.miou,
                "test_boundary_miou": test.boundary.scores.miou,
                "test_miou_end": at_the_end(folder),
                **separation(val["features"][0]),
                **networks(folder),
                "test_iou": dict(zip(names, test.scores.iou, strict=True)),
            }
        )
    keys = [key for key in rows[0] if key.startswith(("val_", "test_")) and key != "test_iou"]
    return {
        "runs": rows,
        **{
            f"{key}_{name}": function([row[key] for row in rows])
            for key in keys
            for name, function in (("mean", statistics.fmean), ("std", spread))
        },
    }


def at_the_end(folder: RunFolder) -> float | None:
    """Test mIoU of the trained network (the student) at the last step, kept or not."""
    config = parse_config(folder.read_config())
    stored = torch.load(folder.last, map_location="cpu", weights_only=True)["state_dict"]
    network = load(folder.root, device="cpu").segmentor
    network.load_state_dict({name: stored[f"segmentor.{name}"] for name in network.state_dict()})
    dataset = open_data(config.data)
    samples = [sample for sample in dataset.select("test") if sample.mask is not None]
    outcome = evaluate(
        network,
        build_eval_loader(samples, dataset.info, batch_size=config.eval.batch, workers=0),
        num_classes=dataset.info.num_classes,
        ignore_index=dataset.info.ignore_index,
        config=replace(config.eval.inference, align_corners=config.model.align_corners),
    )
    return outcome.scores.miou


def separation(layer: dict) -> dict[str, float]:
    """A, U and U_l of one layer."""
    near = layer["neighbourhood_uniformity"]
    return {
        "val_alignment": layer["alignment"],
        "val_uniformity": layer["uniformity"],
        **{f"val_uniformity_{n}": value for n, value in near.items()},
    }


def networks(folder: RunFolder) -> dict[str, float]:
    """Best validation mIoU of each network of a method, whichever was kept."""
    lines = map(json.loads, folder.metrics.read_text().splitlines())
    checks = [line for line in lines if line["kind"] == "val" and "miou" in line]
    return {
        f"val_{key}" if key != "miou" else "val_miou_student": max(check[key] for check in checks)
        for key in checks[0]
        if key.startswith("miou")
    }


def spread(values: list[float]) -> float | None:
    """Standard deviation over the seeds; None for a single one."""
    return statistics.stdev(values) if len(values) > 1 else None


def differences(methods: dict[str, dict], base: str) -> dict[str, dict[str, dict]]:
    """Mean difference to the base over equal seeds, with its standard error, by method and key."""
    keys = [key for key in SHOWN if f"{key}_mean" in methods[base]]
    return {
        name: {key: paired(method["runs"], methods[base]["runs"], key) for key in keys}
        for name, method in methods.items()
        if name != base
    }


def paired(rows: list[dict], twins: list[dict], key: str) -> dict[str, float | None]:
    """Mean of the differences seed by seed, and its standard error."""
    deltas = [row[key] - twin[key] for row, twin in zip(rows, twins, strict=True)]
    error = spread(deltas)
    return {
        "mean": statistics.fmean(deltas),
        "standard_error": None if error is None else error / math.sqrt(len(deltas)),
    }


def table(results: dict) -> str:
    """Everything a method page shows, as Markdown: mIoU in %, mean ± standard deviation."""
    base = next(iter(results["methods"]))
    heads = ["method", "validation", "test", "difference", "at the end", "difference"]
    heads += ["A", "U", "U_1"]
    lines = [heads, ["---"] * len(heads)]
    for name, method in results["methods"].items():
        cells = [f"`{name}_{results['set']}`", score(method, "val_miou")]
        for key in ("test_miou", "test_miou_end"):
            delta = "" if name == base else gap(results["differences"][name][key])
            cells += [score(method, key), delta]
        shape = [f"{method[f'{key}_mean']:.3f}" for key in SHOWN[3:]]
        lines.append([*cells, *shape])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def score(method: dict, key: str) -> str:
    """Mean and standard deviation in per cent."""
    std = method[f"{key}_std"]
    return f"{100 * method[f'{key}_mean']:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")


def gap(difference: dict[str, float | None]) -> str:
    """A difference in points and its standard error."""
    error = difference["standard_error"]
    beside = "" if error is None else f" (s.e. {100 * error:.2f})"
    return f"{100 * (difference['mean'] or 0.0):+.2f}{beside}"


if __name__ == "__main__":
    main()

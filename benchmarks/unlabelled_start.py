"""What images without labels bring before few labels: supervised runs from PiCIE, and from nothing.

    python benchmarks/unlabelled_start.py camvid_small --data CAMVID --labels 30 --seeds 0 1 2

For each seed trains `picie_SET` on all training images without masks (a run that
`benchmarks/unsupervised.py` left is used), then `supervised_SET_few` twice, with the same labelled
images, steps and network: from the weights PiCIE began with, and from the encoder and decoder of
that run. A SET of `_pretrained` begins with ImageNet's weights. Writes
benchmarks/results/unlabelled_start_SET.json, with the scores of `benchmarks/compare.py`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from compare import RESULTS, differences, run, summarise, table
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.recipes import load_recipe

NETWORK = ("encoder", "pretrained", "decoder", "decoder_channels")


def network_of(recipe: str) -> list[str]:
    """The settings that give another recipe the network of `recipe`."""
    model = load_recipe(recipe)["model"]
    return [f"model.{key}={json.dumps(model[key])}" for key in NETWORK]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("set", help="recipes picie_SET and supervised_SET_few")
    parser.add_argument("--labels", type=int, default=30)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/unsupervised"))
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE", help="of all")
    parser.add_argument("--few", nargs="+", default=[], metavar="KEY=VALUE", help="of supervised")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    network = network_of(f"picie_{options.set}")
    folders: dict[str, list[RunFolder]] = {"supervised": [], "supervised from picie": []}
    for seed in options.seeds:
        unlabelled = options.runs / f"picie_{options.set}-seed{seed}"
        run(f"picie_{options.set}", seed, unlabelled, options.data, options.override)
        begun = [f"model.init={unlabelled}", "model.weights_file=null"]
        starts = {"supervised": [], "supervised from picie": begun}
        for name, start in starts.items():
            recipe = f"supervised_{options.set.removesuffix('_pretrained')}_few"
            out = options.runs / f"{name.replace(' ', '_')}_{options.set}-seed{seed}"
            chosen = [f"data.labeled={options.labels}", f"data.labeled_seed={seed}"]
            overrides = [*options.override, *chosen, *network, *options.few, *start]
            folders[name].append(run(recipe, seed, out, options.data, overrides))
    methods = {name: summarise(runs) for name, runs in folders.items()}
    record = folders["supervised"][0].read_record()
    results = {
        "set": options.set,
        "labels": options.labels,
        "seeds": options.seeds,
        "overrides": [*options.override, *network, *options.few],
        "hardware": record["hardware"],
        "versions": record["versions"],
        "methods": methods,
        "differences": differences(methods, "supervised"),
    }
    path = options.out or RESULTS / f"unlabelled_start_{options.set}.json"
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results), path, sep="\n")


if __name__ == "__main__":
    main()

"""Segmentation without labels against plain k-means, over seeds.

    python benchmarks/unsupervised.py scenes_pretrained --seeds 0 1 2 --data runs/scenes
    python benchmarks/unsupervised.py camvid_small --seeds 0 1 2 --data CAMVID

For each seed: k-means on colour and position of pixels, k-means on the features of the untrained
network and of the pretrained one where the recipe begins with that, PiCIE (recipe `picie_SET`) and,
with `--mdc`, its baseline. All cluster the training images without masks, and are matched
one-to-one with the classes of the validation images over the whole set. Writes means, standard
deviations and single runs as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.seeding import generator_for, seed_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.data import build_eval_loader
from pixelcontrast.engine.clusters import count_clusters
from pixelcontrast.engine.environment import hardware, versions
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.prepare import assemble, build_method, prepare
from pixelcontrast.engine.train import train
from pixelcontrast.evaluation import InferenceConfig
from pixelcontrast.evaluation.inference import resized
from pixelcontrast.memory import MiniBatchKMeans

PIXELS = 200_000
"""Kept for k-means, drawn uniformly from each image."""
ITERATIONS = 20
POSITION = 1.0
"""Weight of the position, from 0 to 1 over the image, beside colour from 0 to 1."""


def colour_and_position(image: Tensor) -> Tensor:
    """(B, 5, H, W) red, green, blue, row and column of each pixel, all from 0 to 1."""
    size, _, height, width = image.shape
    rows = torch.linspace(0, 1, height).view(1, 1, -1, 1).expand(size, 1, height, width)
    columns = torch.linspace(0, 1, width).view(1, 1, 1, -1).expand(size, 1, height, width)
    return torch.cat([image.float() / 255, POSITION * rows, POSITION * columns], dim=1)


class Clustered:
    """Features with centroids as a network whose outputs are clusters, by nearest centroid."""

    def __init__(self, features: Callable[[Tensor], Tensor], kmeans: MiniBatchKMeans) -> None:
        self.features = features
        self.kmeans = kmeans

    def __call__(self, image: Tensor) -> SegOutput:
        """Scores that are highest for the nearest centroid."""
        maps = self.features(image)
        means = self.kmeans.centroids
        halves = means.square().sum(1) / 2 * (not self.kmeans.spherical)
        return SegOutput(F.conv2d(maps, means[:, :, None, None], -halves), maps)


def scores_of(features, samples, sources, config, inference: InferenceConfig, *, unit, seed):
    """Accuracy and mean IoU of k-means on `features` after one-to-one matching."""
    info = sources.dataset.info
    kept = max(1, PIXELS // len(samples))
    rows = []
    plain = tuple(replace(sample, mask=None) for sample in samples)
    for batch in build_eval_loader(plain, info, batch_size=config.eval.batch, workers=0):
        maps = features(resized(batch.image, inference.scales[0]))
        for name, one in zip(batch.ids, maps, strict=True):
            cells = one.flatten(1).T
            generator = generator_for("cpu", seed, "pixels", name)
            rows.append(cells[torch.randperm(len(cells), generator=generator)[:kept]])
    every = torch.cat(rows)
    kmeans = MiniBatchKMeans(info.num_classes, every.shape[1], spherical=unit)
    generator = generator_for("cpu", seed, "start")
    kmeans.start(every, generator, iterations=ITERATIONS)
    matched = count_clusters(
        Clustered(features, kmeans),
        sources.val,
        info,
        info.num_classes,
        inference,
        batch=config.eval.batch,
        workers=0,
        device=torch.device("cpu"),
        across_processes=False,
    ).match("hungarian")
    return {"miou": matched.miou, "pixel_accuracy": matched.pixel_accuracy}


RANDOM = ["model.pretrained=false", "model.weights_file=null"]
"""Settings that leave the encoder untrained."""


def baselines(recipe: str, overrides: Sequence[str], seed: int) -> dict[str, dict]:
    """Plain k-means of a seed: of pixels, of the random network, of a pretrained one."""
    given = [*overrides, f"seed={seed}"]
    config, sources, _ = prepare(assemble(recipe, given, {}))
    samples = (*sources.labeled, *sources.unlabeled)
    inference = replace(config.eval.inference, align_corners=config.model.align_corners)
    common = (samples, sources, config, inference)
    found = {
        "colour and position": scores_of(colour_and_position, *common, unit=False, seed=seed),
        "untrained features": scores_of(
            features_before(recipe, [*given, *RANDOM]), *common, unit=True, seed=seed
        ),
    }
    if config.model.pretrained:
        before = features_before(recipe, given)
        found["pretrained features"] = scores_of(before, *common, unit=True, seed=seed)
    return found


def features_before(recipe: str, overrides: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """Unit features of the network that a run begins with; what has no weights yet is random."""
    config, sources, _ = prepare(assemble(recipe, overrides, {}))
    torch.manual_seed(seed_for(config.seed, "weights"))
    segmentor = build_method(config, sources)[0].segmentor.eval()

    @torch.no_grad()
    def features(image: Tensor) -> Tensor:
        return F.normalize(segmentor(image).features.float(), dim=1, eps=1e-12)

    return features


def trained(recipe: str, overrides: Sequence[str], seed: int, folder: Path) -> dict:
    """Scores of a run, which is not repeated if it is there."""
    run = RunFolder(folder / f"{recipe}-seed{seed}")
    found = run.evaluation("val") / "scores.json"
    if not found.is_file():
        train(recipe, [*overrides, f"seed={seed}"], out=run.root, force=True)
    clusters = json.loads(found.read_text(encoding="utf-8"))["clusters"]
    best = clusters["hungarian"]
    return {
        "miou": best["miou"],
        "pixel_accuracy": best["pixel_accuracy"],
        "majority_miou": clusters["majority"]["miou"],
        "probe": clusters["probe"],
        "protocol": clusters["protocol"],
    }


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Means and standard deviations over seeds."""
    values = {}
    for key in ("miou", "pixel_accuracy"):
        numbers = [row[key] for row in rows]
        values[f"{key}_mean"] = statistics.fmean(numbers)
        values[f"{key}_std"] = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("set", help="scenes, camvid_small, ...: the recipe picie_SET is trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of the data set")
    parser.add_argument("--runs", type=Path, default=Path("runs/unsupervised"))
    parser.add_argument("--out", type=Path, help="JSON [benchmarks/results/unsupervised_SET.json]")
    parser.add_argument("--mdc", action="store_true", help="also train mdc_SET")
    parser.add_argument("--override", nargs="*", default=[], help="settings such as train.epochs=4")
    options = parser.parse_args()
    overrides = list(options.override)
    if options.data is not None:
        overrides.append(f"data.root={options.data}")
    recipes = [f"picie_{options.set}", *([f"mdc_{options.set}"] if options.mdc else [])]
    runs: dict[str, list[dict]] = {}
    for seed in options.seeds:
        for name, scores in baselines(recipes[0], overrides, seed).items():
            runs.setdefault(name, []).append(scores)
        for recipe in recipes:
            runs.setdefault(recipe, []).append(trained(recipe, overrides, seed, options.runs))
        print(seed, {name: round(100 * rows[-1]["miou"], 2) for name, rows in runs.items()})
    out = options.out or Path(f"benchmarks/results/unsupervised_{options.set}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "set": options.set,
        "seeds": options.seeds,
        "overrides": options.override,
        "means": {name: summary(rows) for name, rows in runs.items()},
        "runs": runs,
        "hardware": hardware(),
        "versions": versions(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, rows in result["means"].items():
        print(
            f"{name:24} mIoU {100 * rows['miou_mean']:.2f} ± {100 * rows['miou_std']:.2f}, "
            f"accuracy {100 * rows['pixel_accuracy_mean']:.2f}"
        )


if __name__ == "__main__":
    main()

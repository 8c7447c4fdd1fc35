"""What limits a run without labels: its features, the clustering, or one cluster for each class?

    python benchmarks/cluster_limits.py runs/picie_scenes

Mean IoU on the validation images of a finished run, by classifiers that compare the directions of
its features with centroids: k-means with a cluster for each class from several beginnings, matched
one-to-one; finer k-means whose clusters are merged by looking at the masks (majority: no merging
gets more pixels right); and the mean feature of each class of the training masks.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.data import build_eval_loader
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.predict import load
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.evaluation import ClusterCounts
from pixelcontrast.evaluation.inference import resized
from pixelcontrast.memory import MiniBatchKMeans

PIXELS = 40_000
BEGINNINGS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--finer", type=int, nargs="+", default=[40, 100])
    options = parser.parse_args()
    config = parse_config(RunFolder(options.run).read_config())
    sources = gather_sources(replace(config.data, check=False))
    info, predictor = sources.dataset.info, load(options.run)

    @torch.no_grad()
    def unit_features(samples) -> tuple[Tensor, Tensor]:
        maps, masks = [], []
        for batch in build_eval_loader(samples, info, batch_size=config.eval.batch, workers=0):
            shown = resized(batch.image.to(predictor.device), predictor.inference.scales[0])
            features = predictor.segmentor(shown).features.float().cpu()
            maps.append(F.normalize(features, dim=1, eps=1e-12))
            masks.append(batch.mask)
        return torch.cat(maps), torch.cat(masks)

    training, training_masks = unit_features(sources.labeled)
    maps, masks = unit_features(sources.val)
    rows = training.movedim(1, -1).flatten(0, 2)
    labels = resize_labels(training_masks, training.shape[2:]).flatten()
    drawn = torch.randperm(len(rows), generator=generator_for("cpu", 0, "pixels"))[:PIXELS]

    def miou(centroids: Tensor, rule: str) -> float:
        counts = ClusterCounts(info.num_classes, len(centroids), info.ignore_index)
        weight = F.normalize(centroids, dim=1, eps=1e-12)[:, :, None, None]
        for one, mask in zip(maps, masks, strict=True):
            scores = F.interpolate(F.conv2d(one[None], weight), mask.shape, mode="bilinear")
            counts.update(scores.argmax(1), mask[None])
        return 100 * (counts.match(rule).miou or 0.0)

    def clusters(count: int, beginning: int) -> MiniBatchKMeans:
        kmeans = MiniBatchKMeans(count, rows.shape[1], spherical=True)
        kmeans.start(rows[drawn], generator_for("cpu", beginning, "start"))
        return kmeans

    runs = [clusters(info.num_classes, beginning) for beginning in range(BEGINNINGS)]
    print("squared distance  one-to-one")
    for kmeans in sorted(runs, key=lambda found: float(found.loss)):
        print(f"{float(kmeans.loss):16.4f}  {miou(kmeans.centroids, 'hungarian'):10.1f}")
    for count in options.finer:
        merged = miou(clusters(count, 0).centroids, "majority")
        print(f"{count} clusters, merged by masks: {merged:.1f}")
    chosen = [rows[labels == c] for c in range(info.num_classes)]
    means = torch.stack([part.sum(0) for part in chosen])
    print(f"mean features of the classes: {miou(means, 'hungarian'):.1f}")


if __name__ == "__main__":
    main()

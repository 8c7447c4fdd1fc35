"""What clusters look like: maps of the training images, a sheet of examples a cluster, numbers.

Letters: K clusters, H W image.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pixelcontrast.core.files import write_json
from pixelcontrast.data import build_eval_loader, read_image, read_mask, write_bytes, write_mask
from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.engine.names import write_names
from pixelcontrast.engine.predict import load
from pixelcontrast.evaluation import predict_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from pixelcontrast.data import Sample
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.folder import RunFolder

MOST_IMAGES = 1000
"""Images that are looked at, evenly over the training images."""
COLUMNS, ROWS = 4, 2
_TILE_WIDTH = 240


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What is known of a cluster."""

    name: str
    share: float
    """Of all pixels."""
    images: int
    """In which it has a pixel."""
    confidence: float | None
    """Mean probability of the cluster over its pixels; None without any."""
    sheet: str | None
    """File of the contact sheet, relative to the folder of the clusters; None without pixels."""


def describe_clusters(
    folder: RunFolder, config: RunConfig, samples: Sequence[Sample], device: torch.device
) -> list[ClusterFacts]:
    """Segment training images by clusters and write maps, sheets, numbers and a file for names.

    Everything lies in `clusters/` of the run: `maps/<id>.png` in the colours of the clusters,
    `<cluster>.png` with the images that show most of it, all else dimmed, and `clusters.json`.

    Args:
        folder: the run, with its trained network.
        config: how images are shown to the network.
        samples: the training images; at most `MOST_IMAGES` of them are used.
        device: where the network runs.
    """
    step = math.ceil(len(samples) / MOST_IMAGES)
    chosen = [replace(sample, mask=None) for sample in samples[::step]]
    predictor = load(folder.root, device=device)
    # Not the predictor's own names: a person may have merged clusters already.
    names, target = predictor.metadata["classes"], folder.root / "clusters"
    info = DatasetInfo("clusters", tuple(names))
    shutil.rmtree(target, ignore_errors=True)
    pixels = np.zeros((len(chosen), len(names)), np.int64)
    sureness = np.zeros(len(names))
    loader = build_eval_loader(
        chosen, info, batch_size=config.eval.batch, workers=config.data.workers
    )
    for batch in loader:
        labels, confidence = predict_labels(
            predictor.segmentor, batch.image.to(device), predictor.inference
        )
        maps = labels.cpu().numpy(), confidence.cpu().numpy()
        for image, mask, sure in zip(batch.index.tolist(), *maps, strict=True):
            pixels[image] = np.bincount(mask.ravel(), minlength=len(names))
            sureness += np.bincount(mask.ravel(), sure.ravel(), minlength=len(names))
            path = target / "maps" / f"{chosen[image].id}.png"
            write_mask(path, mask.astype(np.uint8), info.palette)
    totals = pixels.sum(0)
    shares = pixels / pixels.sum(1, keepdims=True)
    facts = []
    for k, name in enumerate(names):
        best = [int(i) for i in np.argsort(-shares[:, k], kind="stable") if pixels[i, k]]
        if best:
            shown = [chosen[i] for i in best[: COLUMNS * ROWS]]
            inside = [read_mask(target / "maps" / f"{s.id}.png", info) == k for s in shown]
            tiles = [dimmed(read_image(s.image), m) for s, m in zip(shown, inside, strict=True)]
            write_sheet(target / f"{name}.png", tiles)
        facts.append(
            ClusterFacts(
                name=name,
                share=float(totals[k] / totals.sum()),
                images=len(best),
                confidence=float(sureness[k] / totals[k]) if totals[k] else None,
                sheet=f"{name}.png" if best else None,
            )
        )
    described: list[dict[str, Any]] = [
        {field: getattr(fact, field) for field in ClusterFacts.__slots__} for fact in facts
    ]
    write_json(target / "clusters.json", {"images": len(chosen), "clusters": described})
    write_names(folder.root, names)
    return facts


def dimmed(image: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with everything outside of (H, W) dark and grey."""
    grey = image.mean(axis=2, keepdims=True) * 0.25
    return np.where(inside[..., None], image, grey).round().astype(np.uint8)


def write_sheet(path: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Images (H, W, 3) of any sizes side by side, in tiles of the shape of the first one."""
    height, width = images[0].shape[:2]
    width, height = _TILE_WIDTH, max(1, round(_TILE_WIDTH * height / width))
    rows, columns = math.ceil(len(images) / COLUMNS), min(COLUMNS, len(images))
    sheet = np.full((rows * (height + 4) - 4, columns * (width + 4) - 4, 3), 255, np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, COLUMNS)
        tile = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        top, left = row * (height + 4), column * (width + 4)
        sheet[top : top + height, left : left + width] = tile
    write_bytes(path, cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())

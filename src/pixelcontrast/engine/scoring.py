"""Scores of a finished run on one split, with the pictures its report shows."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pixelcontrast.core.errors import CheckpointError, DataError
from pixelcontrast.core.files import write_json, write_text
from pixelcontrast.data import (
    DATASETS,
    Sample,
    SegDataset,
    build_eval_loader,
    write_bytes,
    write_mask,
)
from pixelcontrast.engine.clusters import MatchedNetwork, evaluate_clusters
from pixelcontrast.engine.config import DataConfig, parse_config
from pixelcontrast.engine.embedding import embedding_pictures
from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.heads import segmentor_with_heads
from pixelcontrast.engine.instances import InstanceMaps
from pixelcontrast.engine.predict import load
from pixelcontrast.engine.sources import gather_sources, open_data
from pixelcontrast.evaluation import Evaluation, FeatureConfig, ImageScore, InferenceConfig
from pixelcontrast.evaluation import evaluate as evaluate_network
from pixelcontrast.evaluation.clusters import ClusterEvaluation
from pixelcontrast.methods import method_class

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.core.types import SegOutput
    from pixelcontrast.models import Segmentor

BOUNDARY = 3.0
"""Pixels from a boundary of the ground truth within which it is scored apart."""
FEATURES = FeatureConfig()

_PICTURES = 6
_LONGEST_SIDE = 640


def _elsewhere(config: DataConfig, root: Path) -> DataConfig:
    """The same kind of data in another folder; its layout is recognised if it is not the run's.

    One layout may be read in several ways (Cityscapes with 19 or 27 classes), so the run's own
    reading comes first.
    """
    layout, folder = DATASETS.get(config.name), root.expanduser()
    same = layout is not None and folder.is_dir() and layout.recognise(folder)
    return replace(config, root=root, name=config.name if same else "auto")


def score_run(
    folder: RunFolder,
    *,
    split: str | None = None,
    data: Path | None = None,
    inference: InferenceConfig | None = None,
    device: str | None = None,
    boundary: float | None = BOUNDARY,
    features: FeatureConfig | None = FEATURES,
) -> Evaluation:
    """Score the best network of a run and store scores and pictures in its folder.

    Args:
        folder: the run.
        split: the run's validation split by default.
        data: another data set folder with the same classes; None: the run's own.
        inference: None: as during training.
        device: None: a GPU if there is one.
        boundary: also score the pixels within this distance of a boundary; None: not.
        features: also measure and draw how the features separate the classes, those before the
            classifier and, while the run keeps its best checkpoint, the embeddings; None: not.

    Raises:
        CheckpointError: the run has no trained network.
        DataError: the split is missing or has no masks, or its classes are others.
    """
    config = parse_config(folder.read_config())
    settings = config.data if data is None else _elsewhere(config.data, data)
    dataset = open_data(settings)
    split = split or config.data.val
    samples = tuple(s for s in dataset.select(split) if s.mask is not None)
    if not samples:
        raise DataError(f"no image of split {split!r} has a mask", where=dataset.root)
    protocol = inference or config.eval.inference
    protocol = replace(protocol, align_corners=config.model.align_corners)
    predictor = load(folder.root, device=device, inference=protocol)
    network: Segmentor | MatchedNetwork | partial[SegOutput] = predictor.segmentor
    clusters: ClusterEvaluation | None = None
    if method_class(config.method_name).finds_clusters:
        clusters, network = evaluate_clusters(
            predictor.segmentor,
            samples,
            dataset.info,
            config,
            protocol,
            predictor.device,
            labelled=gather_sources(replace(settings, check=False)).labeled,
        )
    else:
        _same_classes(predictor.names, dataset)
    if clusters is None and features is not None:
        full = segmentor_with_heads(folder, config, dataset.info.num_classes)
        if full is not None:
            network = partial(full.to(predictor.device), embed=True)
    pictures = _Pictures(samples)
    instances = InstanceMaps(samples, dataset.info.classes)

    def see(score: ImageScore, image: Tensor, truth: Tensor, labels: Tensor) -> None:
        pictures.consider(score, image, truth, labels)
        instances.consider(score.id, truth, labels)

    outcome = evaluate_network(
        network,
        build_eval_loader(
            samples, dataset.info, batch_size=config.eval.batch, workers=config.data.workers
        ),
        num_classes=dataset.info.num_classes,
        ignore_index=dataset.info.ignore_index,
        config=protocol,
        device=predictor.device,
        boundary=boundary,
        features=features,
        on_image=see,
        across_processes=False,  # the other processes of a training run are done by now
    )
    outcome = replace(outcome, instances=instances.scores(), clusters=clusters)
    target = folder.evaluation(split)
    images = pictures.write(target, outcome, dataset)
    drawn = embedding_pictures(outcome.samples, seed=features.seed if features else 0)
    write_text(target / "embedding.json", json.dumps(drawn))
    write_json(
        target / "scores.json",
        {
            "split": split,
            "data": str(dataset.root),
            "step": (folder.read_record().get("best") or {}).get("step"),
            "protocol": asdict(protocol),
            **outcome.to_dict(dataset.info.classes),
            "images": images,
        },
    )
    return outcome


def evaluate(
    run: str | Path,
    *,
    split: str | None = None,
    data: str | Path | None = None,
    inference: InferenceConfig | None = None,
    device: str | None = None,
    boundary: float | None = BOUNDARY,
    features: FeatureConfig | None = FEATURES,
) -> Evaluation:
    """`score_run` for the folder of a run."""
    return score_run(
        RunFolder(run),
        split=split,
        data=None if data is None else Path(data),
        inference=inference,
        device=device,
        boundary=boundary,
        features=features,
    )


def _same_classes(trained: tuple[str, ...], dataset: SegDataset) -> None:
    if trained != dataset.info.classes:
        raise CheckpointError(
            f"the network knows {len(trained)} classes ({', '.join(trained[:5])}, ...), the data "
            f"has {dataset.info.num_classes} ({', '.join(dataset.info.classes[:5])}, ...)",
            where=dataset.root,
            fix="evaluate on data with the same classes in the same order",
        )


class _Pictures:
    """Keeps the images of a fixed panel and the worst ones while an evaluation runs."""

    def __init__(self, samples: tuple[Sample, ...]) -> None:
        places = np.linspace(0, len(samples) - 1, min(_PICTURES, len(samples))).round().astype(int)
        self.panel = {samples[i].id for i in places}
        self.kept: dict[str, tuple[ImageScore, tuple[np.ndarray, ...]]] = {}

    def consider(self, score: ImageScore, image: Tensor, truth: Tensor, labels: Tensor) -> None:
        """Keep the image if it belongs to the panel or to the worst so far."""
        arrays = (
            image.permute(1, 2, 0).cpu().numpy(),
            truth.to("cpu").numpy().astype(np.uint8),
            labels.cpu().numpy().astype(np.uint8),
        )
        self.kept[score.id] = (score, tuple(_shrink(a) for a in arrays))
        others = [s for s, _ in self.kept.values() if s.id not in self.panel]
        if len(others) > _PICTURES:
            best = max(others, key=lambda s: 1.0 if s.miou is None else s.miou)
            del self.kept[best.id]

    def write(self, target: Path, outcome: Evaluation, dataset: SegDataset) -> list[dict[str, Any]]:
        """Write the kept images and describe all of them."""
        shutil.rmtree(target / "images", ignore_errors=True)
        (target / "images").mkdir(parents=True, exist_ok=True)
        worst = {score.id for score in outcome.worst(_PICTURES)}
        described = []
        for number, score in enumerate(outcome.images):
            role = "panel" if score.id in self.panel else "worst" if score.id in worst else None
            files = None
            if role is not None and score.id in self.kept:
                files = {
                    "image": f"images/{number:05d}_image.jpg",
                    "truth": f"images/{number:05d}_truth.png",
                    "pred": f"images/{number:05d}_pred.png",
                }
                image, truth, labels = self.kept[score.id][1]
                quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
                jpeg = cv2.imencode(".jpg", image[..., ::-1], quality)[1]
                write_bytes(target / files["image"], jpeg.tobytes())
                write_mask(target / files["truth"], truth, dataset.info.palette)
                write_mask(target / files["pred"], labels, dataset.info.palette)
            described.append({**score.to_dict(), "role": role, "files": files})
        return described


def _shrink(array: np.ndarray) -> np.ndarray:
    """Pictures for a report need no more than a few hundred pixels; label maps stay label maps."""
    height, width = array.shape[:2]
    factor = _LONGEST_SIDE / max(height, width)
    if factor >= 1:
        return array
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    mode = cv2.INTER_AREA if array.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(array, size, interpolation=mode)

"""Pseudo-labels: what a trained network says about the images without masks, where it is sure.

Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation" (ICCV 2021): the
labels are made once, at full resolution, and stored; less certain pixels are ignored.
Letters: B batch, C classes, H W image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum, rank, wait_for_all, world_size
from pixelcontrast.core.errors import ConfigError, DataError, did_you_mean
from pixelcontrast.core.files import write_json
from pixelcontrast.data import build_eval_loader, write_mask
from pixelcontrast.evaluation import predict_labels
from pixelcontrast.models import load_model

if TYPE_CHECKING:
    from pixelcontrast.data import DatasetInfo
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.sources import Sources


@dataclass(frozen=True, slots=True)
class PseudoLabelConfig:
    """How certain the network must be of a pixel."""

    threshold: float = 0.8
    """Least probability of the predicted class (paper: 0.8 for all classes of Cityscapes and all
    foreground classes of PASCAL VOC). A pixel just as certain is taken."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Other values by class name (paper: 0.97 for the background of PASCAL VOC)."""

    def __post_init__(self) -> None:
        for value in (self.threshold, *self.thresholds.values()):
            if not 0 <= value <= 1:
                raise ConfigError(
                    f"a probability of {value} is impossible",
                    where="pseudo_labels",
                    fix="use thresholds between 0 and 1",
                )


def class_thresholds(config: PseudoLabelConfig, info: DatasetInfo) -> Tensor:
    """(C,) the threshold of every class.

    Raises:
        ConfigError: a threshold for a class that does not exist.
    """
    for name in config.thresholds:
        if name not in info.classes:
            raise ConfigError(
                f"there is no class {name!r}",
                where="pseudo_labels.thresholds",
                fix=did_you_mean(name, info.classes),
            )
    return torch.tensor(
        [config.thresholds.get(name, config.threshold) for name in info.classes],
        dtype=torch.float64,
    )


def certain_labels(
    labels: Tensor, confidence: Tensor, thresholds_C: Tensor, ignore_index: int
) -> Tensor:
    """Predicted classes where the network is certain enough, `ignore_index` elsewhere.

    Args:
        labels: (B, H, W) predicted classes.
        confidence: (B, H, W) their probabilities.
        thresholds_C: (C,) least probability of each class.
        ignore_index: id of the pixels that are left out.
    """
    # Thresholds are rounded like the probabilities they are compared with.
    certain = confidence >= thresholds_C.to(confidence)[labels.long()]
    return torch.where(certain, labels, labels.new_tensor(ignore_index))


def make_pseudo_labels(
    model: Path,
    folder: Path,
    *,
    settings: PseudoLabelConfig,
    config: RunConfig,
    sources: Sources,
    device: torch.device,
) -> dict[str, Any]:
    """Label the unlabelled images and write the masks; all processes share the work.

    A complete folder is left as it is, so that a resumed run sees the same masks.

    Args:
        model: the file of the network that predicts.
        folder: where the masks go.
        settings: the thresholds.
        config: how images are shown to the network.
        sources: the images.
        device: where the network runs.

    Returns:
        What was made: images, share of their pixels that have a label, and that share per class.
    """
    summary_file = folder / "labels.json"
    if summary_file.is_file():
        found: dict[str, Any] = json.loads(summary_file.read_text(encoding="utf-8"))
        return found
    info = sources.dataset.info
    thresholds = class_thresholds(settings, info).to(device)
    protocol = replace(config.eval.inference, align_corners=config.model.align_corners)
    network = load_model(model)[0].to(device)
    counts = torch.zeros(info.num_classes + 1, dtype=torch.float64)
    for batch in build_eval_loader(
        tuple(replace(sample, mask=None) for sample in sources.unlabeled),
        info,
        batch_size=config.eval.batch,
        rank=rank(),
        world_size=world_size(),
        workers=config.data.workers,
    ):
        predicted, confidence = predict_labels(network, batch.image.to(device), protocol)
        masks = certain_labels(predicted, confidence, thresholds, info.ignore_index).cpu()
        for mask, name in zip(masks, batch.ids, strict=True):
            write_mask(mask_file(folder, name), mask.numpy(), info.palette)
        slots = masks.long().masked_fill(masks == info.ignore_index, info.num_classes)
        counts += torch.bincount(slots.flatten(), minlength=len(counts))
    counts = all_reduce_sum(counts.to(device)).cpu()
    shares = (counts / counts.sum().clamp_min(1)).tolist()
    summary = {
        "images": len(sources.unlabeled),
        "threshold": settings.threshold,
        "thresholds": dict(settings.thresholds),
        "labelled_share": round(1 - shares[-1], 4),
        "class_shares": {n: round(s, 4) for n, s in zip(info.classes, shares, strict=False)},
    }
    if rank() == 0:
        write_json(summary_file, summary)
    wait_for_all()
    return summary


def with_pseudo_labels(sources: Sources, folder: Path) -> Sources:
    """The images with the masks of `folder` given to those that had none."""
    labelled = (
        replace(sample, mask=mask_file(folder, sample.id), decoded=True)
        for sample in sources.unlabeled
    )
    return replace(sources, labeled=(*sources.labeled, *labelled), unlabeled=())


def require_unlabelled(sources: Sources) -> None:
    """Make sure that there is something to label.

    Raises:
        DataError: all training images are labelled.
    """
    if not sources.unlabeled:
        raise DataError(
            "there are no unlabelled images to make pseudo-labels for",
            where=sources.dataset.root,
            fix="limit the labelled ones with data.labeled=COUNT, or leave the stage out",
        )


def mask_file(folder: Path, name: str) -> Path:
    """Where the mask of an image lies."""
    return folder / "masks" / f"{name}.png"

"""What one training step of a network costs on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from pixelcontrast.core import process_memory
from pixelcontrast.core.errors import TrainingError
from pixelcontrast.engine.devices import precision, use_gpu
from pixelcontrast.models import build_segmentor, upsample_logits

if TYPE_CHECKING:
    from pixelcontrast.engine.config import TrainConfig
    from pixelcontrast.models import ModelConfig, Segmentor

_SHOWN_CLASSES = 19  # as in Cityscapes


@dataclass(frozen=True, slots=True)
class StepCost:
    """Medians over a few steps."""

    parameters: int
    forward_seconds: float
    backward_seconds: float
    peak_bytes: int | None
    """Memory the steps needed at most beyond the network's own; None where the system does not
    tell."""


def step_cost(
    model: ModelConfig,
    train: TrainConfig,
    *,
    crop: tuple[int, int],
    num_classes: int = _SHOWN_CLASSES,
    rounds: int = 3,
) -> StepCost:
    """Forward and backward pass of cross-entropy on random images, after one that is not counted.

    Args:
        model: the network; its weights are not loaded.
        train: batch, device and precision.
        crop: height and width of the images.
        num_classes: C.
        rounds: steps that are measured.

    Raises:
        TrainingError: the memory of the GPU does not suffice.
    """
    device = torch.device("cuda" if use_gpu(train) else "cpu")
    network = build_segmentor(
        replace(model, pretrained=False, weights_file=None, init=None), num_classes
    ).to(device)
    image = torch.randint(0, 256, (train.batch, 3, *crop), dtype=torch.uint8, device=device)
    mask = torch.randint(0, num_classes, (train.batch, *crop), device=device)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision(train))
    before = _begin_memory(device)
    try:
        times = [_step(network, image, mask, half=half) for _ in range(rounds + 1)][1:]
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{train.batch} images of {crop[0]} x {crop[1]} do not fit on the GPU",
            fix="lower train.batch or view.crop, or set model.checkpointing=true",
        ) from error
    peak = _peak_memory(device)
    return StepCost(
        parameters=sum(p.numel() for p in network.parameters()),
        forward_seconds=statistics.median(forward for forward, _ in times),
        backward_seconds=statistics.median(backward for _, backward in times),
        peak_bytes=None if peak is None or before is None else max(0, peak - before),
    )


def _step(
    network: Segmentor, image: torch.Tensor, mask: torch.Tensor, *, half: torch.dtype | None
) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    network.zero_grad()
    start = _now(image.device)
    with torch.autocast(image.device.type, half, enabled=half is not None):
        out = network(image)
    logits = upsample_logits(
        out.logits, (mask.shape[1], mask.shape[2]), align_corners=network.align_corners
    )
    loss = F.cross_entropy(logits, mask)
    middle = _now(image.device)
    torch.autograd.backward(loss)
    return middle - start, _now(image.device) - middle


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _begin_memory(device: torch.device) -> int | None:
    """Memory in use; from here on the peak counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return process_memory.reset_peak()


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_memory.peak()

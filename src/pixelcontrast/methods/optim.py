"""Optimisers and learning-rate schedules of the papers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import LambdaLR

from pixelcontrast.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """How the weights are moved. Defaults: DeepLab's SGD with polynomial decay."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate of the encoder."""
    head_factor: float = 1.0
    """The decoder and all heads learn at `lr * head_factor`; many papers use 10."""
    layer_decay: float = 1.0
    """Each block of the encoder learns at this share of the rate of the block after it (BEiT,
    2106.08254: 0.65 to 0.95); 1 gives all of them `lr`."""
    momentum: float = 0.9
    nesterov: bool = False
    """SGD looks ahead (PRCL)."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    decay_norm: bool = True
    """False leaves biases and normalisation parameters without weight decay."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 0.9
    """Exponent of the polynomial schedule (DeepLab: 0.9)."""
    warmup_steps: int = 0
    """Steps of linear growth from 0 to the full rate."""
    min_lr: float = 0.0
    """No group's rate falls below this after the growth (PRCL: 1e-6)."""
    clip_norm: float | None = None
    """Largest gradient norm; None does not clip."""

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(
                "the share of the rate must lie in (0, 1]",
                where=f"optim.layer_decay={self.layer_decay}",
                fix="0.65 to 0.95, or 1 for the same rate everywhere",
            )


def learning_rate_factor(step: int, total: int, config: OptimConfig) -> float:
    """Share of the base rate at `step` of `total` steps (0 at the end of poly and cosine)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    span = max(1, total - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    if config.schedule == "poly":
        return float((1.0 - done) ** config.power)
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over parameter groups that carry their own `lr` and `weight_decay`."""
    if config.name == "sgd":
        return torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov
        )
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, total_steps: int
) -> LambdaLR:
    """The schedule, to be stepped once per optimiser step."""

    def factor(lowest: float, step: int) -> float:
        share = learning_rate_factor(step, total_steps, config)
        return share if step < config.warmup_steps else max(share, lowest)

    lowest = [
        config.min_lr / group["lr"] if group["lr"] else 0.0 for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, [partial(factor, share) for share in lowest])

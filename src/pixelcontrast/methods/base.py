"""What every training method shares: optimiser, EMA weights, logging values, safety checks.

A method says which streams of images it needs (`streams`), which heads (`embedding_head`), and
computes its losses (`losses`). Everything else, from devices to checkpoints, is the engine's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from pixelcontrast.core.distributed import rank
from pixelcontrast.core.seeding import generator_for, seed_for
from pixelcontrast.core.teacher import Teacher
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.data.loaders import Stream
from pixelcontrast.methods.finite import FiniteWatch
from pixelcontrast.methods.optim import OptimConfig, build_optimizer, build_schedule
from pixelcontrast.methods.segmentation import SegmentationLoss, SegmentationLossConfig

if TYPE_CHECKING:
    from pixelcontrast.models import EmbeddingConfig, LevelHeadsConfig, Segmentor

LABELED = Stream("labeled", labelled=True)


@dataclass(frozen=True, slots=True)
class Task:
    """What a method has to know about the run it is part of."""

    num_classes: int
    ignore_index: int
    total_steps: int
    seed: int = 0
    epoch_steps: int = 1
    """Steps in which the longer stream shows all of its images once."""
    ema_decay: float | None = None
    """Decay of the averaged weights that are evaluated beside the trained ones; None: no EMA."""
    num_images: int | None = None
    """Labelled training images; None where that is not known."""
    crop: tuple[int, int] | None = None
    """(H, W) of the training views; None where that is not known."""


class Method(LightningModule, ABC):
    """One published training system.

    Args:
        config: an instance of `Config`.
        segmentor: the network that is trained.
        task: the classes, the length and the seed of the run.
        optim: optimiser and schedule.
    """

    streams: ClassVar[tuple[Stream, ...]] = (LABELED,)
    classifies: ClassVar[bool] = True
    """Whether it trains class scores. Else it is not scored: its network starts other runs."""
    finds_clusters: ClassVar[bool] = False
    """Whether its outputs are clusters that it finds, which masks can only be matched with."""
    Config: ClassVar[type]

    def __init__(
        self, config: Any, segmentor: Segmentor, task: Task, optim: OptimConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.segmentor = segmentor
        self.task = task
        self.optim = optim or OptimConfig()
        self.ema = None if task.ema_decay is None else Teacher(segmentor, decay=task.ema_decay)
        self.batch_index = 0
        self.latest: LossReport | None = None
        self.finite = FiniteWatch()

    # What a method defines

    @classmethod
    def embedding_head(cls, config: Any) -> EmbeddingConfig | LevelHeadsConfig | None:
        """The projection head (or heads, one a level) the segmentor needs, or None."""
        return None

    @classmethod
    def output_names(cls, config: Any, classes: Sequence[str]) -> tuple[str, ...]:
        """What the outputs of the network stand for: the classes of the data set."""
        return tuple(classes)

    def segmentation_loss(self, config: SegmentationLossConfig) -> SegmentationLoss:
        """Cross-entropy for the classes and the network of this run."""
        return SegmentationLoss(
            config,
            self.task.num_classes,
            self.task.ignore_index,
            self.segmentor.align_corners,
        )

    @abstractmethod
    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """The whole training idea: weighted loss terms of one batch of every stream."""

    def after_step(self) -> None:
        """Called once per optimiser step, after the weights have moved."""

    # What the engine calls

    def predictors(self) -> dict[str, nn.Module]:
        """The networks that are scored in validation; the last one is the preferred one."""
        networks: dict[str, nn.Module] = {"student": self.segmentor}
        if self.ema is not None:
            networks["ema"] = self.ema.module
        return networks

    def predictor(self) -> nn.Module:
        """The network that is evaluated, saved and exported."""
        return list(self.predictors().values())[-1]

    def random(self, purpose: str) -> torch.Generator:
        """A generator for one purpose in this step: a pure function of the seed and the position.

        All processes get the same numbers; add the rank to `purpose` where they must differ.
        """
        return generator_for(self.device, self.task.seed, purpose, self.batch_index)

    # Lightning's hooks

    def training_step(self, batch: Mapping[str, Batch], batch_idx: int) -> Tensor:
        """Computes the losses of one batch and keeps the report for the logs."""
        # Dropout draws from the global generator; seeding it by position makes resume exact.
        torch.manual_seed(seed_for(self.task.seed, "step", batch_idx, rank()))
        self.batch_index = batch_idx
        report = self.losses(batch)
        ids = tuple(name for stream in batch.values() for name in stream.ids)
        self.finite.watch(self.global_step, report.terms, ids)
        self.latest = LossReport(
            {name: term.detach() for name, term in report.terms.items()}, report.stats
        )
        return report.total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Moves the weights, then the averaged weights and the method's own memory."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.segmentor)
        self.after_step()

    def configure_optimizers(self) -> Any:
        """Encoder and heads in groups of their own, with the schedule stepped every step."""
        config = self.optim
        groups = self.segmentor.parameter_groups(
            config.lr,
            config.weight_decay,
            head_factor=config.head_factor,
            decay_norm_and_bias=config.decay_norm,
            layer_decay=config.layer_decay,
        )
        own = [
            parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not name.startswith(("segmentor.", "ema."))
        ]
        if own:
            rate = config.lr * config.head_factor
            groups.append({"params": own, "lr": rate, "weight_decay": config.weight_decay})
        optimizer = build_optimizer(groups, config)
        schedule = build_schedule(optimizer, config, self.task.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

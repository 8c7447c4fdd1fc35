"""Semi-supervised base: what methods share that learn from few masks and many images.

A method writes its whole step in `losses`, from small parts:

    class Mine(TeacherStudent):                       # or SemiSupervised: a teacher on demand
        Config = MineConfig                           # has `teacher: TeacherConfig`
        streams = (LABELED, unlabeled(strong_views=1))

        def losses(self, batch):
            labeled, rest = batch["labeled"], batch["unlabeled"]
            pseudo = self.pseudo_labels(self.teacher(rest.image), rest)       # no gradient
            keep = self.cutmix_keep(rest, "mix")                              # what stays
            mixed = self.mix(rest.strong[0], pseudo, keep)                    # labels alike
            output = self.segmentor(torch.cat([labeled.image, mixed.image]))
            ...
            kept = confident(mixed.pseudo, 0.95)
            return LossReport(terms, self.statistics(pseudo, confident(pseudo, 0.95), rest))

* Streams: every step has a labelled and an unlabelled batch; each stream runs through its own
  images without dropping any, so the longer one sets what an epoch is (`Task.epoch_steps`). An
  unlabelled stream never opens a mask, unless `data.hidden_masks` asks to measure pseudo-labels;
  then `Batch.hidden_mask` is read by `statistics` and by nothing else.
* Networks: with `config.teacher`, an exponential moving average of the student is kept as `teacher`
  and moved after every optimiser step; it is saved and resumed exactly. Both are scored, as
  `student` and `teacher`. The teacher takes the place of `train.ema`, which adds no third network.
  Without a teacher the student is scored and, with `train.ema`, `ema`.
* Draws: `Method.random` gives the same generator on all processes; the functions of `data.mixing`
  and `own_share` cut out the part of this process. Two processes then train as one does.
* Pseudo-labels with rules: `sampling.pseudo_labels`; losses: `losses.consistency`.
* A contrast term (`method.contrast`) is built by `SemiSupervised` itself; call `self.contrasted`.
* Nothing trusted for a long time: `statistics` warns, naming `trust_setting`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import rank, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.teacher import Teacher
from pixelcontrast.core.types import Batch, LossReport, SegOutput
from pixelcontrast.data import Stream
from pixelcontrast.data.mixing import MixInput, area_boxes, mix
from pixelcontrast.data.views import inside_boxes
from pixelcontrast.losses import masked_consistency
from pixelcontrast.methods.base import LABELED, Method, Task
from pixelcontrast.methods.contrast import (
    ContrastBatch,
    ContrastChoice,
    build_contrast,
    contrast_class,
)
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.sampling import (
    PseudoLabels,
    confident,
    pseudo_label_statistics,
    pseudo_labels,
    with_ignore,
)

if TYPE_CHECKING:
    from pixelcontrast.methods.optim import OptimConfig
    from pixelcontrast.models import EmbeddingConfig, LevelHeadsConfig, Segmentor


def unlabeled(strong_views: int = 0) -> Stream:
    """The stream of images without masks, with so many strong views beside the weak one."""
    return Stream("unlabeled", labelled=False, strong_views=strong_views)


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """The mean teacher; see `core.teacher.Teacher`."""

    decay: float = 0.99
    """Largest share of the old teacher per step (U2PL, PRCL: 0.99; UniMatch V2: 0.996)."""
    warmup: bool = True
    """Start as the plain mean of the first students, which forgets the untrained network."""
    buffers: Literal["copy", "average", "own"] = "copy"
    """Batch-norm statistics: the student's, averaged like the parameters (UniMatch V2), or those
    of the teacher's own forward passes in training mode (U2PL, PRCL)."""


@dataclass(frozen=True, slots=True)
class MixedView:
    """A view of unlabelled images with parts of other images, and its labels mixed alike."""

    image: Tensor
    """(B, 3, H, W)."""
    pseudo: PseudoLabels


class SemiSupervised(Method):
    """A method with a labelled and an unlabelled stream, perhaps a teacher and a contrast term.

    Its `Config` may have fields `teacher: TeacherConfig | None`, `contrast: ContrastChoice | None`.
    """

    streams: ClassVar[tuple[Stream, ...]] = (LABELED, unlabeled())

    def __init__(
        self, config: Any, segmentor: Segmentor, task: Task, optim: OptimConfig | None = None
    ) -> None:
        settings: TeacherConfig | None = getattr(config, "teacher", None)
        if settings is not None:  # itself an average: a second would only be scored twice
            task = replace(task, ema_decay=None)
        super().__init__(config, segmentor, task, optim)
        self.teacher: Teacher | None = None
        if settings is not None:
            self.teacher = Teacher(
                segmentor,
                decay=settings.decay,
                warmup=settings.warmup,
                buffers=settings.buffers,
            )
        choice: ContrastChoice | None = getattr(config, "contrast", None)
        self.contrast = None if choice is None else build_contrast(choice, self)
        if choice and contrast_class(choice.name).needs_teacher and self.teacher is None:
            raise ConfigError(
                f"contrast {choice.name!r} compares with a teacher, and this method has none",
                where="method.contrast.name",
                fix="use a method with a teacher (mean_teacher, unimatch_v2) or set method.teacher "
                "where there is such a setting",
            )
        self.kept = KeptWatch(
            "no pixel of an unlabelled image was trusted, so these images teach nothing: "
            f"{self.trust_setting()} is too strict"
        )

    @classmethod
    def embedding_head(cls, config: Any) -> EmbeddingConfig | LevelHeadsConfig | None:
        """The head of the contrast term, if there is one."""
        choice: ContrastChoice | None = getattr(config, "contrast", None)
        return None if choice is None else contrast_class(choice.name).embedding_head(choice.config)

    def trust_setting(self) -> str:
        """What decides which pseudo-labels are trusted, for a warning when none ever is."""
        return f"method.threshold = {getattr(self.config, 'threshold', None)}"

    def pseudo_labels(
        self, output: SegOutput, batch: Batch, *, entropy: bool = False
    ) -> PseudoLabels:
        """What a network says about the unlabelled pixels, at full size and without gradient."""
        return pseudo_labels(
            output.logits, batch.valid, align_corners=self.segmentor.align_corners, entropy=entropy
        )

    def cutmix_keep(self, batch: Batch, purpose: str) -> Tensor:
        """(B, H, W) bool, false inside one UniMatch box an image; half the images have none."""
        size = (batch.valid.shape[-2], batch.valid.shape[-1])
        boxes = area_boxes(len(batch.valid), size, generator=self.random(purpose))
        return ~inside_boxes(boxes, size)

    @torch.no_grad()
    def mix(self, image: Tensor, pseudo: PseudoLabels, keep: Tensor) -> MixedView:
        """The view with the partner image's pixels and pseudo-labels where `keep` is false.

        Raises:
            ConfigError: fewer than two images on this process.
        """
        mixed = mix(MixInput(image, pseudo.labels, pseudo.confidence, pseudo.valid), keep)
        assert mixed.label is not None  # parts that go in come out
        assert mixed.confidence is not None
        assert mixed.valid is not None
        return MixedView(mixed.image, PseudoLabels(mixed.label, mixed.confidence, mixed.valid))

    def masked(self, output: SegOutput, pseudo: PseudoLabels, threshold: float) -> Tensor:
        """Cross-entropy with the confident pseudo-labels of a view (FixMatch, UniMatch)."""
        return masked_consistency(
            output.logits,
            pseudo.labels,
            confident(pseudo, threshold),
            pseudo.valid,
            align_corners=self.segmentor.align_corners,
        )

    def statistics(self, pseudo: PseudoLabels, keep: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Shares and, with hidden masks, accuracy of the pseudo-labels; warns if none is kept.

        Args:
            pseudo: the labels of the images as they are, before any mixing.
            keep: (B, H, W) bool, which of their pixels are trusted.
            batch: the unlabelled batch.
        """
        self.kept.note(keep)
        found = pseudo_label_statistics(
            pseudo, keep, num_classes=self.task.num_classes, truth=batch.hidden_mask
        )
        broken = (batch.valid & ~pseudo.valid).sum() / batch.valid.sum().clamp_min(1)
        return {**found, "not_finite_share": broken}

    @property
    def embeds(self) -> bool:
        """Whether this step's student pass has to compute embeddings."""
        return self.contrast is not None and self.contrast.needs_embedding(self.global_step)

    def contrasted(
        self,
        student: SegOutput,
        labeled: Batch,
        pseudo: PseudoLabels,
        keep: Tensor,
        *,
        teacher: SegOutput | None = None,
        scores: Tensor | None = None,
        trusted: Tensor | None = None,
        unreliable: Tensor | None = None,
    ) -> LossReport:
        """The contrast term over labelled and pseudo-labelled pixels; empty without a term.

        Where `embeds` is false the heads only stay in the graph.

        Args:
            student: output with embeddings for the labelled images, then the unlabelled ones.
            labeled: the labelled batch.
            pseudo: labels of the unlabelled images as the student saw them (mixed, if it did).
            keep: (B_u, H, W) bool, the pseudo-labels that are trusted, or at least handed over.
            teacher: the teacher's output for the same images, for terms that need it.
            scores: class scores behind the pseudo-labels, if not the teacher's for these images.
            trusted: (B_u, H, W) bool, which of them are trusted; None: all.
            unreliable: (B_u, H, W) bool, pixels too unsure to be learnt, where the method says so.
        """
        if self.contrast is None:
            return LossReport({}, {})
        if student.embedding is None:
            return LossReport({"contrast": self.segmentor.idle_heads(student)}, {})
        assert labeled.mask is not None  # the stream is a labelled one
        given = torch.ones_like(labeled.mask, dtype=torch.float32)
        ignored = with_ignore(pseudo.labels, keep, self.task.ignore_index)
        report: LossReport = self.contrast(
            ContrastBatch(
                student=student,
                labels=torch.cat([labeled.mask.long(), ignored]),
                labelled=len(labeled.image),
                step=self.global_step,
                teacher=teacher,
                confidence=torch.cat([given, pseudo.confidence]),
                valid=torch.cat([labeled.valid, pseudo.valid]),
                scores=scores,
                trusted=trusted,
                unreliable=unreliable,
            )
        )
        return report

    def predictors(self) -> dict[str, nn.Module]:
        """The networks that are scored; a teacher is the preferred one."""
        networks = super().predictors()
        return networks if self.teacher is None else {**networks, "teacher": self.teacher.module}

    def told(self, images: Tensor) -> SegOutput | None:
        """The teacher's output with embeddings, where the contrast term asks for it."""
        if self.teacher is None or self.contrast is None:
            return None
        if not self.embeds or not self.contrast.needs_teacher:
            return None
        output: SegOutput = self.teacher(images, embed=True)
        return output

    def after_step(self) -> None:
        """Move the teacher, then let the contrast term write its memory."""
        if self.teacher is not None:
            self.teacher.update(self.segmentor)
        if self.contrast is not None:
            self.contrast.after_step()


class TeacherStudent(SemiSupervised):
    """A semi-supervised method that always has a teacher: `Config` has `teacher: TeacherConfig`."""

    teacher: Teacher


def own_share(drawn: Tensor) -> Tensor:
    """The rows of this process of a tensor drawn alike on all processes, for all their images."""
    count = len(drawn) // world_size()
    return drawn[rank() * count : (rank() + 1) * count]

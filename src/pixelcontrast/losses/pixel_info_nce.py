"""Pixel contrast with labels: every pixel against every other, exactly, in linear memory.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation" (ICCV 2021), and
Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation" (ICCV 2021).
Letters: B batch, D embedding, N anchors, K keys, H W image, h w feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.losses.backends import anchor_terms
from pixelcontrast.losses.maps import as_rows
from pixelcontrast.losses.problem import (
    AnchorTerms,
    Backend,
    Contrast,
    Denominator,
    KeySet,
    NegativeScope,
    Reduction,
    checked_ids,
    checked_vectors,
    without_ignored,
)


def pixel_info_nce(
    anchors_ND: Tensor,
    anchor_labels_N: Tensor,
    keys_KD: Tensor | None = None,
    key_labels_K: Tensor | None = None,
    *,
    temperature: float = 0.1,
    base_temperature: float | None = None,
    denominator: Denominator = "negatives",
    include_anchors: bool | None = None,
    anchor_images_N: Tensor | None = None,
    key_images_K: Tensor | None = None,
    negatives: NegativeScope = "all",
    self_index_N: Tensor | None = None,
    weights_N: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
    backend: Backend = "auto",
) -> Tensor:
    """Supervised contrast of labelled anchors with labelled keys.

    With s_ij = <a_i, k_j> / temperature, P_i the keys of the anchor's class (never the anchor
    itself) and N_i the keys of other classes, the loss of anchor i is::

        "negatives":  mean over p in P_i of  -log( e^s_ip / (e^s_ip + sum over N_i of e^s_in) )
        "all":        mean over p in P_i of  -log( e^s_ip / sum over P_i and N_i of e^s_ik )

    The first is equation 3 of Wang et al. (ICCV 2021), the second the within-image loss of
    Zhao et al. (ICCV 2021), in other words supervised contrastive learning. Value and gradient
    are those of the full similarity matrix; the matrix itself is never stored.

    Anchors without a positive are left out of the mean; without negatives the first form is 0;
    without any anchor the result is 0, attached to the graph, with zero gradient.

    Args:
        anchors_ND: (N, D) embeddings, usually of unit length; float16, bfloat16, float32 or
            float64. Similarities, sums and the result are float32 (float64 for float64).
        anchor_labels_N: (N,) class ids. Negative ids never take any role.
        keys_KD: (K, D) further embeddings: a memory, prototypes, another view. They receive a
            gradient if they require one. None: the anchors contrast with each other.
        key_labels_K: (K,) class ids of the keys.
        temperature: divides the similarities; 0.1 in Wang et al., 0.07 in Zhao et al.
        base_temperature: the loss is multiplied by temperature / base_temperature, as in the
            official code of Wang et al. (0.07 there); None: factor 1, as in the papers.
        denominator: see above.
        include_anchors: the anchors are keys, too. None: only where no keys are given.
        anchor_images_N: (N,) image of each anchor, for negatives "own_image".
        key_images_K: (K,) image of each key, for negatives "own_image".
        negatives: "all" keys of other classes, or those of the "own_image" alone (positives
            come from every image), the cross-image loss of Zhao et al.
        self_index_N: (N,) row of `keys_KD` that is the anchor itself, negative where there is
            none; that pair takes no role.
        weights_N: (N,) weight of each anchor in the sum and in the mean.
        ignore_index: a class id that takes no role, besides the negative ones.
        reduction: weighted "mean" over the anchors with a positive, "sum", or "none" for the
            weighted loss of each anchor (N,), 0 where it has no positive.
        backend: "matrix" computes whole rows of the matrix, "stream" tiles with half of the work
            among anchors; "triton" is its fused form for NVIDIA GPUs; "naive" leaves the gradient
            to autograd, several derivatives included; "auto" takes the fastest that fits.

    Raises:
        ConfigError: arguments that do not fit together.
    """
    contrast = _contrast(
        anchors_ND,
        anchor_labels_N,
        keys_KD,
        key_labels_K,
        temperature=temperature,
        denominator=denominator,
        include_anchors=include_anchors,
        anchor_images_N=anchor_images_N,
        key_images_K=key_images_K,
        negatives=negatives,
        self_index_N=self_index_N,
        ignore_index=ignore_index,
    )
    loss = reduce_terms(anchor_terms(contrast, backend), weights_N, reduction)
    return loss if base_temperature is None else loss * (temperature / base_temperature)


def reduce_terms(terms: AnchorTerms, weights_N: Tensor | None, reduction: Reduction) -> Tensor:
    """Weighted mean over the anchors with a positive, weighted sum, or the weighted terms."""
    loss = terms.loss
    if weights_N is not None:
        weight = weights_N.to(loss).detach() * (terms.positives > 0)
        loss = loss * weight
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        if weights_N is None:
            return loss.sum() / terms.positives.count_nonzero().clamp_min(1)
        total = weight.sum()
        return loss.sum() / torch.where(total > 0, total, 1)
    raise unknown_name("reduction", reduction, ("mean", "sum", "none"))


def _contrast(
    anchors_ND: Tensor,
    anchor_labels_N: Tensor,
    keys_KD: Tensor | None,
    key_labels_K: Tensor | None,
    *,
    temperature: float,
    denominator: Denominator,
    include_anchors: bool | None,
    anchor_images_N: Tensor | None,
    key_images_K: Tensor | None,
    negatives: NegativeScope,
    self_index_N: Tensor | None,
    ignore_index: int | None,
) -> Contrast:
    """The arguments of `pixel_info_nce`, checked."""
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive, not {temperature}")
    if denominator not in ("negatives", "all"):
        raise unknown_name("denominator", denominator, ("negatives", "all"))
    if negatives not in ("all", "own_image"):
        raise unknown_name("choice of negatives", negatives, ("all", "own_image"))
    if (keys_KD is None) != (key_labels_K is None):
        raise ConfigError("keys and key labels belong together", fix="pass both or neither")
    mutual = keys_KD is None if include_anchors is None else include_anchors
    if keys_KD is None and (not mutual or self_index_N is not None):
        raise ConfigError("without keys the anchors are the keys", fix="pass keys_KD")

    checked_vectors("anchors", anchors_ND)
    device, (count, dim) = anchors_ND.device, anchors_ND.shape
    labels = without_ignored(
        checked_ids("anchor labels", anchor_labels_N, count, device), ignore_index
    )
    own_image = negatives == "own_image"
    images = _images("anchor_images_N", anchor_images_N, count, device) if own_image else None
    keys = None
    if keys_KD is not None and key_labels_K is not None:
        checked_vectors("keys", keys_KD, dim)
        rows = len(keys_KD)
        keys = KeySet(
            keys_KD,
            without_ignored(checked_ids("key labels", key_labels_K, rows, device), ignore_index),
            _images("key_images_K", key_images_K, rows, device) if own_image else None,
            None
            if self_index_N is None
            else checked_ids("self_index_N", self_index_N, count, device),
        )
    return Contrast(anchors_ND, labels, images, keys, mutual, 1.0 / temperature, denominator)


def _images(name: str, images: Tensor | None, count: int, device: torch.device) -> Tensor:
    if images is None:
        raise ConfigError(
            f"negatives='own_image' needs {name}", fix="pass the image number of each row"
        )
    return checked_ids(name, images, count, device)


class PixelInfoNCE(nn.Module):
    """`pixel_info_nce` over dense embedding maps, to add to any training loop.

    Args:
        temperature: see `pixel_info_nce`; 0.1 in Wang et al. (ICCV 2021).
        base_temperature: see `pixel_info_nce`.
        denominator: see `pixel_info_nce`.
        negatives: "all" or those of the "own_image".
        ignore_index: class id without a role, besides the negative ones; 255 is the convention
            of segmentation masks.
        normalize: bring embeddings and memory to unit length first.
        reduction: "mean", "sum" or "none".
        backend: see `pixel_info_nce`.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        base_temperature: float | None = None,
        *,
        denominator: Denominator = "negatives",
        negatives: NegativeScope = "all",
        ignore_index: int | None = 255,
        normalize: bool = True,
        reduction: Reduction = "mean",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.base_temperature = base_temperature
        self.denominator: Denominator = denominator
        self.negatives: NegativeScope = negatives
        self.ignore_index = ignore_index
        self.normalize = normalize
        self.reduction: Reduction = reduction
        self.backend: Backend = backend

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        memory_KD: Tensor | None = None,
        memory_labels_K: Tensor | None = None,
        *,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The loss of all pixels against each other and against the memory.

        Args:
            embeddings: maps (B, D, h, w) or rows (N, D).
            labels: (B, H, W), brought to (h, w) by nearest pixel, or (N,).
            memory_KD: (K, D) keys of earlier batches; never given a gradient. They count as
                pixels of other images.
            memory_labels_K: (K,) their class ids.
            weights: (B, h, w) or (N,) weight of each anchor.
        """
        rows, row_labels, images = as_rows(embeddings, labels)
        memory = None if memory_KD is None else memory_KD.detach()
        if self.normalize:
            rows = _unit(rows)
            memory = None if memory is None else _unit(memory)
        memory_images = None
        if self.negatives == "own_image" and memory is not None:
            memory_images = torch.full((len(memory),), -1, device=rows.device)
        return pixel_info_nce(
            rows,
            row_labels,
            memory,
            memory_labels_K,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            denominator=self.denominator,
            include_anchors=True,
            anchor_images_N=images,
            key_images_K=memory_images,
            negatives=self.negatives,
            weights_N=None if weights is None else weights.reshape(-1),
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """The formula, as printed inside a model."""
        return (
            f"temperature={self.temperature}, denominator={self.denominator!r}, "
            f"negatives={self.negatives!r}, ignore_index={self.ignore_index}"
        )


def _unit(rows: Tensor) -> Tensor:
    """Rows of unit length, in their own type but with the norm in float32."""
    with torch.autocast(rows.device.type, enabled=False):
        wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
        return F.normalize(wide, dim=1).to(rows.dtype)

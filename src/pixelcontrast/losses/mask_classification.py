"""The loss of networks that predict a set of masks with a class each.

Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation" (2107.06278),
section 3.3: every class of an image is one mask to be found; predictions and masks are matched at
the least total cost, matched predictions learn class and mask, all others learn "no object".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from pixelcontrast.core.assignment import assign_pairs
from pixelcontrast.core.distributed import mean_over_ranks
from pixelcontrast.core.labels import resize_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2  # Lin et al., 1708.02002
_UNMATCHABLE = 1e6  # in place of a cost that is not a number


class _Match(NamedTuple):
    """Matched pairs of one layer, each (K,): image, prediction and class."""

    image: Tensor
    query: Tensor
    label: Tensor


def mask_classification_loss(
    classes: Sequence[Tensor],
    masks: Sequence[Tensor],
    labels: Tensor,
    *,
    ignore_index: int,
    class_weights: Tensor | None = None,
    class_weight: float = 1.0,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    no_object_weight: float = 0.1,
    align_corners: bool = False,
) -> dict[str, Tensor]:
    """Cross-entropy of matched classes, focal and dice loss of matched masks, over all layers.

    The weights are those of the paper's section 4.1; they weight the matching costs as well. Each
    layer is matched by itself. Ignored pixels count nowhere (in the released code they belong to no
    mask, so that every mask learns to avoid them), nor do images without a label. Costs are
    computed at the masks' resolution and matched on the host: one transfer a step, which waits for
    the device. Means are those over all processes.

    Args:
        classes: (B, Q, C + 1) class scores of every layer, "no object" last.
        masks: (B, Q, h, w) mask scores of every layer.
        labels: (B, H, W) class ids.
        ignore_index: label without a class.
        class_weights: (C,) factor of each class in the cross-entropy.
        class_weight: factor of the cross-entropy.
        focal_weight: factor of the focal loss.
        dice_weight: factor of the dice loss.
        no_object_weight: factor of predictions without a partner in the cross-entropy.
        align_corners: convention by which masks are brought to the size of the labels.

    Returns:
        The weighted terms `mask_class`, `mask_focal` and `mask_dice` in float32.
    """
    num_classes = classes[0].shape[2] - 1
    ids = labels.long().masked_fill(labels == ignore_index, num_classes)
    weights = ids.new_ones(num_classes + 1, dtype=torch.float32)
    weights[-1] = no_object_weight
    if class_weights is not None:
        weights[:-1] = class_weights
    with torch.autocast(labels.device.type, enabled=False):
        small = resize_labels(ids, (masks[0].shape[2], masks[0].shape[3])).flatten(1)
        target = F.one_hot(small, num_classes + 1)[..., :-1].float()
        costs = [
            matching_cost(c, m, target, class_weight, focal_weight, dice_weight)
            for c, m in zip(classes, masks, strict=True)
        ]
        sums: dict[str, list[Tensor]] = {"mask_class": [], "mask_focal": [], "mask_dice": []}
        for layer, match in enumerate(_matches(torch.stack(costs), ids)):
            sums["mask_class"].append(_class_loss(classes[layer], match, ids, weights))
            focal, dice = _mask_losses(masks[layer], match, ids, num_classes, align_corners)
            sums["mask_focal"].append(focal)
            sums["mask_dice"].append(dice)
    factors = {"mask_class": class_weight, "mask_focal": focal_weight, "mask_dice": dice_weight}
    return {name: factors[name] * torch.stack(parts).sum() for name, parts in sums.items()}


@torch.no_grad()
def matching_cost(
    classes: Tensor,
    masks: Tensor,
    target: Tensor,
    class_weight: float = 1.0,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
) -> Tensor:
    """What it would cost to give each prediction each class of its image.

    Args:
        classes: (B, Q, C + 1) class scores.
        masks: (B, Q, h, w) mask scores.
        target: (B, h w, C) 1 for the class of each pixel of the masks, all 0 for ignored ones.
        class_weight: factor of minus the class probability.
        focal_weight: factor of the focal loss.
        dice_weight: factor of the dice loss.

    Returns:
        (B, Q, C) in float32.
    """
    known = target.sum(2)[:, None]
    scores = masks.float().flatten(2)
    probability = scores.sigmoid() * known
    positive = _FOCAL_ALPHA * (1 - probability) ** _FOCAL_GAMMA * F.softplus(-scores)
    negative = (1 - _FOCAL_ALPHA) * probability**_FOCAL_GAMMA * F.softplus(scores)
    # Summed over the pixels of the class, and over all other known pixels.
    focal = (positive - negative) @ target + negative.sum(2, keepdim=True)
    focal = focal / known.sum(2, keepdim=True).clamp_min(1)
    overlap = probability @ target
    area = probability.sum(2, keepdim=True) + target.sum(1, keepdim=True)
    dice = 1 - (2 * overlap + 1) / (area + 1)
    chance = classes.float().softmax(2)[..., :-1]
    return focal_weight * focal + dice_weight * dice - class_weight * chance


def _matches(costs: Tensor, ids: Tensor) -> list[_Match]:
    """The cheapest pairs of each layer, by the Hungarian method on the host.

    Args:
        costs: (L, B, Q, C).
        ids: (B, H, W) class ids, C for ignored pixels.
    """
    layers, batch, _, num_classes = costs.shape
    present = ids.new_zeros(batch, num_classes + 1).scatter_(1, ids.flatten(1), 1)[:, :-1]
    packed = torch.cat([costs.flatten(), present.flatten().float()]).cpu()
    table = packed.nan_to_num(_UNMATCHABLE, _UNMATCHABLE, -_UNMATCHABLE)
    cost = table[: costs.numel()].view(costs.shape)
    there = table[costs.numel() :].view(batch, num_classes) > 0
    matches = []
    for layer in range(layers):
        rows: list[list[int]] = [[], [], []]
        for image in range(batch):
            labels = there[image].nonzero().flatten()
            query, place = assign_pairs(cost[layer, image][:, labels])
            rows[0] += [image] * len(query)
            rows[1] += query.tolist()
            rows[2] += labels[place].tolist()
        found = torch.tensor(rows, dtype=torch.long).to(costs.device, non_blocking=True)
        matches.append(_Match(*found))
    return matches


def _class_loss(classes: Tensor, match: _Match, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of all predictions of images with a label."""
    none = len(weights) - 1
    target = ids.new_full(classes.shape[:2], none)
    target[match.image, match.query] = match.label
    labelled = (ids < none).flatten(1).any(1, keepdim=True)
    loss = F.cross_entropy(classes.float().transpose(1, 2), target, reduction="none")
    weight = weights[target] * labelled
    return mean_over_ranks((loss * weight).sum(), weight.sum())


def _mask_losses(
    masks: Tensor, match: _Match, ids: Tensor, num_classes: int, align_corners: bool
) -> tuple[Tensor, Tensor]:
    """Mean focal and dice loss of the matched masks at the size of the labels."""
    size = (ids.shape[1], ids.shape[2])
    chosen = masks.float()[match.image, match.query][:, None]
    scores = F.interpolate(chosen, size=size, mode="bilinear", align_corners=align_corners)
    scores = scores.flatten(1)
    own = ids.flatten(1)[match.image]
    target, known = (own == match.label[:, None]).float(), (own < num_classes).float()
    probability = scores.sigmoid()
    wrong = torch.where(target > 0, 1 - probability, probability)
    balance = torch.where(target > 0, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA)
    entropy = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    focal = (balance * wrong**_FOCAL_GAMMA * entropy * known).sum(1) / known.sum(1).clamp_min(1)
    overlap = (probability * target).sum(1)
    area = (probability * known).sum(1) + target.sum(1)
    dice = 1 - (2 * overlap + 1) / (area + 1)
    count = torch.full((), float(len(target)), device=masks.device)
    return mean_over_ranks(focal.sum(), count), mean_over_ranks(dice.sum(), count)

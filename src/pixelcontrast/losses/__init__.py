"""Loss functions of pixel contrast: pure functions first, thin modules where they help.

They need torch alone and work in any training loop.
"""

from pixelcontrast.losses.cluster import (
    Balance,
    ClusterView,
    PicieLoss,
    cluster_weights,
    mixture_factors,
    picie_loss,
    prototype_cross_entropy,
    prototype_logits,
    weighted_cross_entropy,
)
from pixelcontrast.losses.consistency import (
    image_weighted_consistency,
    masked_consistency,
    pixel_cross_entropy,
    reweighted_consistency,
    squared_consistency,
)
from pixelcontrast.losses.cross_entropy import segmentation_cross_entropy
from pixelcontrast.losses.distribution_contrast import Distributions, distribution_info_nce
from pixelcontrast.losses.label_contrast import (
    batch_loss,
    cross_image_loss,
    draw_partners,
    released_pair_loss,
    within_image_loss,
)
from pixelcontrast.losses.likelihood import mutual_likelihood, pairwise_likelihood
from pixelcontrast.losses.mask_classification import mask_classification_loss
from pixelcontrast.losses.pixel_anchor import PixelAnchorLoss, pixel_anchor_loss
from pixelcontrast.losses.pixel_info_nce import PixelInfoNCE, pixel_info_nce
from pixelcontrast.losses.rank_distribution import (
    RankConsistency,
    RankMode,
    rank_consistency,
    rank_divergence,
    rank_log_probabilities,
)
from pixelcontrast.losses.sampled import sampled_info_nce

__all__ = [
    "Balance",
    "ClusterView",
    "Distributions",
    "PicieLoss",
    "PixelAnchorLoss",
    "PixelInfoNCE",
    "RankConsistency",
    "RankMode",
    "batch_loss",
    "cluster_weights",
    "cross_image_loss",
    "distribution_info_nce",
    "draw_partners",
    "image_weighted_consistency",
    "mask_classification_loss",
    "masked_consistency",
    "mixture_factors",
    "mutual_likelihood",
    "pairwise_likelihood",
    "picie_loss",
    "pixel_anchor_loss",
    "pixel_cross_entropy",
    "pixel_info_nce",
    "prototype_cross_entropy",
    "prototype_logits",
    "rank_consistency",
    "rank_divergence",
    "rank_log_probabilities",
    "released_pair_loss",
    "reweighted_consistency",
    "sampled_info_nce",
    "segmentation_cross_entropy",
    "squared_consistency",
    "weighted_cross_entropy",
    "within_image_loss",
]

"""Which pixels and keys take part: anchors, memory entries, regions, positives, negatives.

Everything here is chosen by number first and looked up once, draws from a generator that is
handed in, and never makes the host wait for the device.
"""

from pixelcontrast.core.labels import resize_labels
from pixelcontrast.sampling.anchors import (
    AnchorSample,
    PixelPool,
    gather_pixels,
    sample_anchors,
    sample_per_class,
)
from pixelcontrast.sampling.boundaries import BaneError, boundary_negatives, label_distance
from pixelcontrast.sampling.class_pool import ClassPool, draw_classes, other_class_weights
from pixelcontrast.sampling.landmarks import Landmarks, draw_pixels, select_landmarks
from pixelcontrast.sampling.members import ClassMembers, Numbers, Pixels
from pixelcontrast.sampling.pseudo_labels import (
    PseudoLabels,
    confident,
    entropy_threshold,
    pseudo_label_statistics,
    pseudo_labels,
    with_ignore,
)
from pixelcontrast.sampling.regions import RegionSample, region_means
from pixelcontrast.sampling.selection import Selection, Strategy, select_keys
from pixelcontrast.sampling.synthesis import (
    Mixture,
    draw_mixtures,
    mixed_similarities,
    mixed_vectors,
)
from pixelcontrast.sampling.unreliable import (
    ClassRoles,
    NegativeRule,
    class_roles,
    pixels_of,
    ranked_between,
)
from pixelcontrast.sampling.virtual import VirtualNoise, virtual_points

__all__ = [
    "AnchorSample",
    "BaneError",
    "ClassMembers",
    "ClassPool",
    "ClassRoles",
    "Landmarks",
    "Mixture",
    "NegativeRule",
    "Numbers",
    "PixelPool",
    "Pixels",
    "PseudoLabels",
    "RegionSample",
    "Selection",
    "Strategy",
    "VirtualNoise",
    "boundary_negatives",
    "class_roles",
    "confident",
    "draw_classes",
    "draw_mixtures",
    "draw_pixels",
    "entropy_threshold",
    "gather_pixels",
    "label_distance",
    "mixed_similarities",
    "mixed_vectors",
    "other_class_weights",
    "pixels_of",
    "pseudo_label_statistics",
    "pseudo_labels",
    "ranked_between",
    "region_means",
    "resize_labels",
    "sample_anchors",
    "sample_per_class",
    "select_keys",
    "select_landmarks",
    "virtual_points",
    "with_ignore",
]

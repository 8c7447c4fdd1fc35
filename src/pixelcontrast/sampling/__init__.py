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
from pixelcontrast.sampling.regions import RegionSample, region_means
from pixelcontrast.sampling.selection import Selection, Strategy, select_keys
from pixelcontrast.sampling.synthesis import (
    Mixture,
    draw_mixtures,
    mixed_similarities,
    mixed_vectors,
)

__all__ = [
    "AnchorSample",
    "BaneError",
    "Mixture",
    "PixelPool",
    "RegionSample",
    "Selection",
    "Strategy",
    "boundary_negatives",
    "draw_mixtures",
    "gather_pixels",
    "label_distance",
    "mixed_similarities",
    "mixed_vectors",
    "region_means",
    "resize_labels",
    "sample_anchors",
    "sample_per_class",
    "select_keys",
]

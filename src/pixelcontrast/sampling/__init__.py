"""Which pixels and keys take part: anchors, memory entries, positives and negatives."""

from pixelcontrast.core.labels import resize_labels
from pixelcontrast.sampling.anchors import (
    AnchorSample,
    gather_pixels,
    sample_anchors,
    sample_per_class,
)

__all__ = ["AnchorSample", "gather_pixels", "resize_labels", "sample_anchors", "sample_per_class"]

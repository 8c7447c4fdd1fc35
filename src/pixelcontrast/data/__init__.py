"""Data sets: what lies on disk, whether it is sound, and how it reaches the network."""

from pixelcontrast.data.catalog import DATASETS, open_dataset
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset, default_palette
from pixelcontrast.data.problems import Problem
from pixelcontrast.data.reading import image_size, read_image, read_mask, write_mask

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "Problem",
    "Sample",
    "SegDataset",
    "default_palette",
    "image_size",
    "open_dataset",
    "read_image",
    "read_mask",
    "write_mask",
]

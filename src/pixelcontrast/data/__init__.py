"""Data sets: what lies on disk, whether it is sound, and how it reaches the network.

Names are imported when they are first used, so that the command line can list data sets without
waiting for torch.
"""

from typing import TYPE_CHECKING

from pixelcontrast.core.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcontrast.data.cache import open_reader as open_reader
    from pixelcontrast.data.catalog import DATASETS as DATASETS
    from pixelcontrast.data.catalog import open_dataset as open_dataset
    from pixelcontrast.data.catalog import recognise as recognise
    from pixelcontrast.data.checks import CheckReport as CheckReport
    from pixelcontrast.data.checks import check_dataset as check_dataset
    from pixelcontrast.data.colour import ColourConfig as ColourConfig
    from pixelcontrast.data.dataset import DatasetInfo as DatasetInfo
    from pixelcontrast.data.dataset import Sample as Sample
    from pixelcontrast.data.dataset import SegDataset as SegDataset
    from pixelcontrast.data.dataset import default_palette as default_palette
    from pixelcontrast.data.guides import Guide as Guide
    from pixelcontrast.data.guides import download_missing as download_missing
    from pixelcontrast.data.guides import guide as guide
    from pixelcontrast.data.inspection import count_classes as count_classes
    from pixelcontrast.data.loaders import Stream as Stream
    from pixelcontrast.data.loaders import build_eval_loader as build_eval_loader
    from pixelcontrast.data.loaders import build_pair_loader as build_pair_loader
    from pixelcontrast.data.loaders import build_train_loader as build_train_loader
    from pixelcontrast.data.pairs import PairConfig as PairConfig
    from pixelcontrast.data.pairs import Pairing as Pairing
    from pixelcontrast.data.pairs import crop_features as crop_features
    from pixelcontrast.data.problems import Problem as Problem
    from pixelcontrast.data.problems import problem_lines as problem_lines
    from pixelcontrast.data.published import PublishedList as PublishedList
    from pixelcontrast.data.published import full_name as full_name
    from pixelcontrast.data.published import published_list as published_list
    from pixelcontrast.data.published import published_lists as published_lists
    from pixelcontrast.data.reading import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from pixelcontrast.data.reading import image_size as image_size
    from pixelcontrast.data.reading import read_image as read_image
    from pixelcontrast.data.reading import read_mask as read_mask
    from pixelcontrast.data.reading import write_bytes as write_bytes
    from pixelcontrast.data.reading import write_mask as write_mask
    from pixelcontrast.data.scenes import SCENES_INFO as SCENES_INFO
    from pixelcontrast.data.scenes import make_scenes as make_scenes
    from pixelcontrast.data.scenes import render_scene as render_scene
    from pixelcontrast.data.splits import Split as Split
    from pixelcontrast.data.splits import complement as complement
    from pixelcontrast.data.splits import make_split as make_split
    from pixelcontrast.data.splits import read_split as read_split
    from pixelcontrast.data.splits import split_hash as split_hash
    from pixelcontrast.data.splits import verify_split as verify_split
    from pixelcontrast.data.splits import write_split as write_split
    from pixelcontrast.data.stats import ClassStats as ClassStats
    from pixelcontrast.data.stats import DatasetStats as DatasetStats
    from pixelcontrast.data.views import ViewConfig as ViewConfig

_NAMES = {
    "cache": ("open_reader",),
    "catalog": ("DATASETS", "open_dataset", "recognise"),
    "checks": ("CheckReport", "check_dataset"),
    "colour": ("ColourConfig",),
    "dataset": ("DatasetInfo", "Sample", "SegDataset", "default_palette"),
    "guides": ("Guide", "download_missing", "guide"),
    "inspection": ("count_classes",),
    "loaders": ("Stream", "build_eval_loader", "build_pair_loader", "build_train_loader"),
    "pairs": ("PairConfig", "Pairing", "crop_features"),
    "problems": ("Problem", "problem_lines"),
    "published": ("PublishedList", "full_name", "published_list", "published_lists"),
    "reading": (
        "IMAGE_SUFFIXES", "image_size", "read_image", "read_mask", "write_bytes", "write_mask",
    ),
    "scenes": ("SCENES_INFO", "make_scenes", "render_scene"),
    "splits": (
        "Split", "complement", "make_split", "read_split", "split_hash", "verify_split",
        "write_split",
    ),
    "stats": ("ClassStats", "DatasetStats"),
    "views": ("ViewConfig",),
}  # fmt: skip
__all__, __getattr__ = lazy_names(__name__, _NAMES)

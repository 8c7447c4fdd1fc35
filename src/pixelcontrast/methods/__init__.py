"""The training methods, one file each.

`METHODS` names them without importing them, so that listing stays fast. Packages outside this one
add theirs through the entry-point group `pixelcontrast.methods`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

from pixelcontrast.core.errors import unknown_name

if TYPE_CHECKING:
    from pixelcontrast.methods.base import Method


class MethodEntry(NamedTuple):
    """Where a method lives and what it is, for lists."""

    target: str
    """`module:class`."""
    labels: str
    """Which images need masks."""
    summary: str


METHODS: dict[str, MethodEntry] = {
    "supervised": MethodEntry(
        "pixelcontrast.methods.supervised:Supervised",
        "all",
        "cross-entropy on the labelled images; the baseline of every comparison",
    ),
    "fixmatch": MethodEntry(
        "pixelcontrast.methods.fixmatch:FixMatch",
        "few",
        "confident pseudo-labels of the weak view teach the strong view (NeurIPS 2020)",
    ),
    "mean_teacher": MethodEntry(
        "pixelcontrast.methods.mean_teacher:MeanTeacher",
        "few",
        "the student follows an averaged network on mixed images (NeurIPS 2017, BMVC 2020)",
    ),
    "unimatch": MethodEntry(
        "pixelcontrast.methods.unimatch:UniMatch",
        "few",
        "two strong views and feature dropout follow the weak view (CVPR 2023)",
    ),
    "unimatch_v2": MethodEntry(
        "pixelcontrast.methods.unimatch:UniMatchV2",
        "few",
        "two strong views with complementary dropout follow a mean teacher (TPAMI 2025)",
    ),
    "rankmatch": MethodEntry(
        "pixelcontrast.methods.rankmatch:RankMatch",
        "few",
        "UniMatch whose views rank the landmarks of an image alike (CVPR 2024)",
    ),
    "u2pl": MethodEntry(
        "pixelcontrast.methods.u2pl:U2PL",
        "few",
        "mean teacher whose unsure pixels become negatives of unlikely classes (CVPR 2022)",
    ),
    "pico": MethodEntry(
        "pixelcontrast.methods.pico:PiCo",
        "all",
        "cross-entropy plus pixel contrast across images, with or without memory (TPAMI 2024)",
    ),
    "contextrast": MethodEntry(
        "pixelcontrast.methods.contextrast:Contextrast",
        "all",
        "cross-entropy plus class anchors against boundary errors on every level (CVPR 2024)",
    ),
    "label_pretrain": MethodEntry(
        "pixelcontrast.methods.label_pretrain:LabelPretrain",
        "all",
        "label-contrastive pretraining, then cross-entropy (ICCV 2021)",
    ),
    "prcl": MethodEntry(
        "pixelcontrast.methods.prcl:PRCL",
        "few",
        "mean teacher and contrast of pixels as Gaussians, unsure ones pull less (IJCV 2024)",
    ),
    "picie": MethodEntry(
        "pixelcontrast.methods.picie:PiCIE",
        "none",
        "clusters of pixels that colour and place do not change (CVPR 2021)",
    ),
    "mdc": MethodEntry(
        "pixelcontrast.methods.mdc:MDC",
        "none",
        "clusters of pixels and a classifier trained on them, PiCIE's baseline (ECCV 2018)",
    ),
}


def list_methods() -> dict[str, MethodEntry]:
    """All methods by name, those of installed plug-ins included."""
    plugins = {
        point.name: MethodEntry(point.value, "?", f"plug-in of {point.dist and point.dist.name}")
        for point in entry_points(group="pixelcontrast.methods")
    }
    return {**plugins, **METHODS}


def method_entry(name: str) -> MethodEntry:
    """Where a method lives and what it is.

    Raises:
        ConfigError: no method has this name.
    """
    known = list_methods()
    if name not in known:
        raise unknown_name("method", name, known)
    return known[name]


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ConfigError: no method has this name.
    """
    module, _, attribute = method_entry(name).target.partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found

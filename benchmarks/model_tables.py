"""Writes the table of backbones: the one `list models` reads and the one of docs/models.md.

    python benchmarks/model_tables.py

Everything comes from the models themselves, built without memory; no weights are fetched.
"""

from __future__ import annotations

import pprint
import re
from pathlib import Path

import timm

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.backbones import Backbone
from pixelcontrast.models.encoder import _memoryless, _plan

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/pixelcontrast/models/backbones.py"
PAGE = ROOT / "docs/models.md"
NAMES = (
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "resnet101",
    "resnet50s",
    "resnet101s",
    "resnet101d",
    "hrnet_w18_small",
    "hrnet_w18",
    "hrnet_w48",
    "convnext_tiny",
    "convnext_base",
    "convnext_tiny.dinov3_lvd1689m",
    "mit_b0",
    "mit_b1",
    "mit_b2",
    "mit_b3",
    "mit_b4",
    "mit_b5",
    "pvt_v2_b0",
    "swin_tiny_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_dinov3",
)


def row(name: str) -> Backbone:
    """What a backbone is like, from timm."""
    plan = _plan(name, 32)
    net = _memoryless(name, plan.options)
    try:
        dilates = _plan(name, 8).strides[-1] == 8
    except ConfigError:
        dilates = False
    cfg = timm.get_pretrained_cfg(name)
    return Backbone(
        millions=round(sum(p.numel() for p in net.parameters()) / 1e6, 2),
        strides=plan.strides,
        dilates=dilates,
        channels=plan.channels,
        license=(cfg and cfg.license) or "",
    )


def source(rows: dict[str, Backbone]) -> str:
    """The lines of the table in the package."""
    lines = [
        f'    "{name}": Backbone(\n        '
        + ", ".join(pprint.pformat(value, width=1000) for value in entry)
        + ",\n    ),"
        for name, entry in rows.items()
    ]
    return "\n".join(lines).replace("'", '"')


def page(rows: dict[str, Backbone]) -> str:
    """The table of the documentation."""
    lines = [
        "| encoder | parameters (M) | strides | output stride | widths | licence of the weights |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    for name, entry in rows.items():
        same = len(set(entry.strides)) == 1
        strides = (
            f"{len(entry.strides)} x {entry.strides[0]}"
            if same
            else ", ".join(map(str, entry.strides))
        )
        widths = entry.channels[0] if len(set(entry.channels)) == 1 else entry.channels
        widths = str(widths).strip("()")
        dilates = "8, 16, 32" if entry.dilates else str(max(entry.strides))
        lines.append(
            f"| `{name}` | {entry.millions:.2f} | {strides} | {dilates} | {widths} "
            f"| {entry.license or 'not stated'} |"
        )
    return "\n".join(lines)


def between(text: str, marks: tuple[str, str], new: str) -> str:
    """`text` with what lies between two marks replaced."""
    first, last = (re.escape(mark) for mark in marks)
    changed, count = re.subn(
        f"({first}\n).*?([ ]*{last})", lambda m: f"{m[1]}{new}\n{m[2]}", text, flags=re.DOTALL
    )
    if count != 1:
        raise RuntimeError(f"{count} places marked {marks[0]!r}")
    return changed


def main() -> None:
    rows = {name: row(name) for name in NAMES}
    SOURCE.write_text(
        between(
            SOURCE.read_text("utf-8"),
            ("# begin of the table", "# end of the table"),
            source(rows),
        ),
        "utf-8",
    )
    marks = ("<!-- begin of the table of backbones -->", "<!-- end of the table of backbones -->")
    PAGE.write_text(between(PAGE.read_text("utf-8"), marks, page(rows)), "utf-8")


if __name__ == "__main__":
    main()

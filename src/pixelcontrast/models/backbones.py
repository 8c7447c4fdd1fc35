"""Backbones that are tried, with what `list models` says about them; imports nothing.

Any other timm backbone with feature maps that takes more than one image size will do. The table is
written by `benchmarks/model_tables.py`, and a test compares it with timm.
"""

from __future__ import annotations

from typing import NamedTuple


class Backbone(NamedTuple):
    """One row."""

    millions: float
    """Parameters without a classifier, in millions."""
    strides: tuple[int, ...]
    """Strides of the stages, without dilation."""
    dilates: bool
    """Whether `model.output_stride` may be 8 or 16."""
    channels: tuple[int, ...]
    """Widths of the stages; the last one is that of the tap `encoder`."""
    license: str
    """Licence of the default weights as timm states it."""

    @property
    def summary(self) -> str:
        """The row in words."""
        if self.dilates:
            strides = "output stride 8-32"
        elif len(set(self.strides)) == 1:
            strides = f"{len(self.strides)} blocks of stride {self.strides[0]}"
        else:
            strides = f"output stride {self.strides[-1]}"
        licence = self.license or "licence not stated"
        return f"{self.millions:6.2f} M; {strides}; {self.channels[-1]}; {licence}"


BACKBONES: dict[str, Backbone] = {
    # begin of the table
    "mobilenetv2_100": Backbone(
        1.81,
        (4, 8, 16, 32),
        True,
        (24, 32, 96, 320),
        "apache-2.0",
    ),
    "mobilenetv3_small_100": Backbone(
        0.93,
        (4, 8, 16, 32),
        True,
        (16, 24, 48, 576),
        "apache-2.0",
    ),
    "mobilenetv3_large_100": Backbone(
        2.97,
        (4, 8, 16, 32),
        True,
        (24, 40, 112, 960),
        "apache-2.0",
    ),
    "efficientnet_b0": Backbone(
        3.6,
        (4, 8, 16, 32),
        True,
        (24, 40, 112, 320),
        "apache-2.0",
    ),
    "resnet18": Backbone(
        11.18,
        (4, 8, 16, 32),
        True,
        (64, 128, 256, 512),
        "apache-2.0",
    ),
    "resnet50": Backbone(
        23.51,
        (4, 8, 16, 32),
        True,
        (256, 512, 1024, 2048),
        "apache-2.0",
    ),
    "resnet101": Backbone(
        42.5,
        (4, 8, 16, 32),
        True,
        (256, 512, 1024, 2048),
        "apache-2.0",
    ),
    "resnet50s": Backbone(
        23.63,
        (4, 8, 16, 32),
        True,
        (256, 512, 1024, 2048),
        "apache-2.0",
    ),
    "resnet101s": Backbone(
        42.62,
        (4, 8, 16, 32),
        True,
        (256, 512, 1024, 2048),
        "apache-2.0",
    ),
    "resnet101d": Backbone(
        42.52,
        (4, 8, 16, 32),
        True,
        (256, 512, 1024, 2048),
        "apache-2.0",
    ),
    "hrnet_w18_small": Backbone(
        1.48,
        (4, 8, 16, 32),
        False,
        (16, 32, 64, 128),
        "apache-2.0",
    ),
    "hrnet_w18": Backbone(
        9.56,
        (4, 8, 16, 32),
        False,
        (18, 36, 72, 144),
        "mit",
    ),
    "hrnet_w48": Backbone(
        65.33,
        (4, 8, 16, 32),
        False,
        (48, 96, 192, 384),
        "mit",
    ),
    "convnext_tiny": Backbone(
        27.82,
        (4, 8, 16, 32),
        True,
        (96, 192, 384, 768),
        "apache-2.0",
    ),
    "convnext_base": Backbone(
        87.56,
        (4, 8, 16, 32),
        True,
        (128, 256, 512, 1024),
        "apache-2.0",
    ),
    "convnext_tiny.dinov3_lvd1689m": Backbone(
        27.82,
        (4, 8, 16, 32),
        True,
        (96, 192, 384, 768),
        "dinov3-license",
    ),
    "mit_b0": Backbone(
        3.32,
        (4, 8, 16, 32),
        False,
        (32, 64, 160, 256),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "mit_b1": Backbone(
        13.15,
        (4, 8, 16, 32),
        False,
        (64, 128, 320, 512),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "mit_b2": Backbone(
        24.2,
        (4, 8, 16, 32),
        False,
        (64, 128, 320, 512),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "mit_b3": Backbone(
        44.07,
        (4, 8, 16, 32),
        False,
        (64, 128, 320, 512),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "mit_b4": Backbone(
        60.84,
        (4, 8, 16, 32),
        False,
        (64, 128, 320, 512),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "mit_b5": Backbone(
        81.44,
        (4, 8, 16, 32),
        False,
        (64, 128, 320, 512),
        "NVIDIA Source Code License (non-commercial)",
    ),
    "pvt_v2_b0": Backbone(
        3.41,
        (4, 8, 16, 32),
        False,
        (32, 64, 160, 256),
        "apache-2.0",
    ),
    "swin_tiny_patch4_window7_224": Backbone(
        27.52,
        (4, 8, 16, 32),
        False,
        (96, 192, 384, 768),
        "mit",
    ),
    "swin_base_patch4_window7_224": Backbone(
        86.74,
        (4, 8, 16, 32),
        False,
        (128, 256, 512, 1024),
        "mit",
    ),
    "vit_tiny_patch16_224": Backbone(
        5.52,
        (16, 16, 16, 16),
        False,
        (192, 192, 192, 192),
        "apache-2.0",
    ),
    "vit_small_patch16_224": Backbone(
        21.66,
        (16, 16, 16, 16),
        False,
        (384, 384, 384, 384),
        "apache-2.0",
    ),
    "vit_base_patch16_224": Backbone(
        85.8,
        (16, 16, 16, 16),
        False,
        (768, 768, 768, 768),
        "apache-2.0",
    ),
    "deit_small_patch16_224": Backbone(
        21.66,
        (16, 16, 16, 16),
        False,
        (384, 384, 384, 384),
        "apache-2.0",
    ),
    "deit_base_patch16_224": Backbone(
        85.8,
        (16, 16, 16, 16),
        False,
        (768, 768, 768, 768),
        "apache-2.0",
    ),
    "vit_small_patch14_dinov2": Backbone(
        22.06,
        (14, 14, 14, 14),
        False,
        (384, 384, 384, 384),
        "apache-2.0",
    ),
    "vit_base_patch14_dinov2": Backbone(
        86.58,
        (14, 14, 14, 14),
        False,
        (768, 768, 768, 768),
        "apache-2.0",
    ),
    "vit_large_patch14_dinov2": Backbone(
        304.37,
        (14, 14, 14, 14),
        False,
        (1024, 1024, 1024, 1024),
        "apache-2.0",
    ),
    "vit_small_patch14_reg4_dinov2": Backbone(
        22.06,
        (14, 14, 14, 14),
        False,
        (384, 384, 384, 384),
        "apache-2.0",
    ),
    "vit_small_patch16_dinov3": Backbone(
        21.59,
        (16, 16, 16, 16),
        False,
        (384, 384, 384, 384),
        "dinov3-license",
    ),
    "vit_base_patch16_dinov3": Backbone(
        85.64,
        (16, 16, 16, 16),
        False,
        (768, 768, 768, 768),
        "dinov3-license",
    ),
    # end of the table
}

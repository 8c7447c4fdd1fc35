"""Parameters of Segmenter in the authors' released code, beside this package's.

    git clone https://github.com/rstrudel/segmenter && pip install einops
    python benchmarks/segmenter_counts.py segmenter

Builds the networks of the README (150 classes, mask transformer) from the `config.yml` of that
checkout, as its `factory.py` does, with the crops they were trained on. Prints millions.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from torch import nn

from pixelcontrast.models import ModelConfig, build_segmentor

CROPS = {"tiny": 512, "small": 512, "base": 512, "large": 640}
CLASSES = 150


def released(size: str, crop: int, config: dict) -> nn.Module:
    """The authors' network."""
    from segm.model.decoder import MaskTransformer
    from segm.model.segmenter import Segmenter
    from segm.model.vit import VisionTransformer

    model = config["model"][f"vit_{size}_patch16_384"]
    decoder = config["decoder"]["mask_transformer"]
    shared = {"d_model": model["d_model"], "d_ff": 4 * model["d_model"]}
    encoder = VisionTransformer(
        (crop, crop),
        model["patch_size"],
        model["n_layers"],
        n_heads=model["n_heads"],
        n_cls=1000,
        **shared,
    )
    head = MaskTransformer(
        CLASSES,
        model["patch_size"],
        model["d_model"],
        decoder["n_layers"],
        n_heads=model["d_model"] // 64,
        drop_path_rate=decoder["drop_path_rate"],
        dropout=decoder["dropout"],
        **shared,
    )
    return Segmenter(encoder, head, n_cls=CLASSES)


def ours(size: str) -> nn.Module:
    """The same network here."""
    encoder = f"vit_{size}_patch16_384"
    return build_segmentor(
        ModelConfig(encoder=encoder, decoder="segmenter", pretrained=False), CLASSES
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkout", type=Path, help="a checkout of rstrudel/segmenter")
    checkout = parser.parse_args().checkout
    sys.path.insert(0, str(checkout))
    config = yaml.safe_load((checkout / "segm" / "config.yml").read_text())
    for size, crop in CROPS.items():
        counts = [
            sum(p.numel() for p in network.parameters()) / 1e6
            for network in (released(size, crop, config), ours(size))
        ]
        print(f"{size:6} released {counts[0]:7.2f}  here {counts[1]:7.2f}")


if __name__ == "__main__":
    main()

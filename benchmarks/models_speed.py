"""Forward speed of DeepLabV3+ beside segmentation_models_pytorch's, on one CPU thread.

    python benchmarks/models_speed.py            # writes benchmarks/results/models_speed_cpu.json
    python benchmarks/models_speed.py --quick    # a small image, prints only

ResNet-50 at output stride 16, a batch of two square images whose side is a multiple of 16 (the
other library accepts no other), evaluation mode, untrained weights, 21 classes. The other
library's decoder is made of separable convolutions, so `deeplabv3plus_separable` is its
counterpart; `deeplabv3plus` has the plain convolutions of the semi-supervised methods and is
measured beside the other one with its pyramid made plain, as far as that library goes: its fusion
stays separable. One contestant's forward pass includes normalisation (ours alone does that) and
up-sampling to the image. The arithmetic differs, too: this package's decoder has the two fusion
convolutions of the paper, the other library's one and separable; `ours_over_smp_per_flop` divides
the ratio of the times by that of the floating-point operations of all convolutions. Times are
process CPU time; contestants take turns, and a ratio is the median over rounds of the ratio within
a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import segmentation_models_pytorch as smp
import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelcontrast.models import ModelConfig, build_segmentor

BATCH, CLASSES, ENCODER = 2, 21, "resnet50"
RESULT = Path(__file__).parent / "results" / "models_speed_cpu.json"


def ours(decoder):
    config = ModelConfig(encoder=ENCODER, decoder=decoder, pretrained=False)
    return build_segmentor(config, CLASSES).deploy().eval()


def theirs(**options):
    return smp.DeepLabV3Plus(ENCODER, encoder_weights=None, classes=CLASSES, **options).eval()


def seconds(network, image):
    begun = time.process_time()
    with torch.inference_mode():
        scores = network(image)
    taken = time.process_time() - begun
    if tuple(scores.shape) != (BATCH, CLASSES, *image.shape[-2:]):
        raise RuntimeError(f"scores of shape {tuple(scores.shape)}")
    return taken


def gigaflops(network, image):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return round(counter.get_total_flops() / 1e9, 2)


def beside(pair, mine, other, image):
    flops = [gigaflops(network, image) for network in pair]
    ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return {
        "ours_seconds": round(statistics.median(mine), 4),
        "smp_seconds": round(statistics.median(other), 4),
        "ours_over_smp": round(ratio, 3),
        "gigaflops": flops,
        "ours_over_smp_per_flop": round(ratio * flops[1] / flops[0], 3),
        "parameters": [sum(p.numel() for p in network.parameters()) for network in pair],
    }


def measure(side, rounds):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pairs = {
        "separable": (ours("deeplabv3plus_separable"), theirs()),
        "plain": (ours("deeplabv3plus"), theirs(decoder_aspp_separable=False)),
    }
    image = torch.rand(BATCH, 3, side, side)
    times = {name: ([], []) for name in pairs}
    for turn in range(rounds + 1):
        for name, pair in pairs.items():
            taken = [seconds(network, image) for network in pair]
            if turn:  # the first one warms up
                for mine, value in zip(times[name], taken, strict=True):
                    mine.append(value)
    return {name: beside(pairs[name], *taken, image) for name, taken in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    side, rounds = (128, 2) if quick else (256, 9)
    result = {
        "encoder": ENCODER,
        "batch": BATCH,
        "side": side,
        "rounds": rounds,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "segmentation_models_pytorch": smp.__version__,
        **measure(side, rounds),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if not quick:
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

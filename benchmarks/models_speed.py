"""Forward speed of DeepLabV3+ beside segmentation_models_pytorch's, on one CPU thread.

    python benchmarks/models_speed.py            # writes benchmarks/results/models_speed_cpu.json
    python benchmarks/models_speed.py --quick    # a small image, prints only

ResNet-50 at output stride 16, a batch of two square images whose side is a multiple of 16 (the
other library accepts no other), evaluation mode, untrained weights, 21 classes. The other
library's decoder is made of separable convolutions, so `deeplabv3plus_separable` is its
counterpart; `deeplabv3plus` has the plain convolutions of the semi-supervised methods and is
measured beside the other one with its pyramid made plain, as far as that library goes: its fusion
stays separable. Contestants:

* `ours`: what `pixelcontrast predict` runs, `Segmentor.fast_copy`: batch norm merged into the
  convolutions, weights arranged for the processor;
* `ours_unfolded`: the network as it is evaluated during training;
* `smp`: the other library's network as its constructor gives it, which has no such step;
* `smp_channels_last`: the same after `.to(memory_format=torch.channels_last)`.

A forward pass includes normalisation (ours alone does that) and up-sampling to the image. The
arithmetic differs, too: this package's decoder has the two fusion convolutions of the paper, the
other library's one and separable; `gigaflops` counts the convolutions of both. Times are process
CPU time; contestants take turns, and a ratio is the median over rounds of the ratio within a
round.
"""

from __future__ import annotations

import argparse
import copy
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

from pixelcontrast.models import DeployedSegmentor, ModelConfig, build_segmentor

BATCH, CLASSES, ENCODER = 2, 21, "resnet50"
RESULT = Path(__file__).parent / "results" / "models_speed_cpu.json"


def ours(decoder):
    """As predicted with, and as evaluated in training."""
    torch.manual_seed(0)
    model = build_segmentor(
        ModelConfig(encoder=ENCODER, decoder=decoder, pretrained=False), CLASSES
    )
    return tuple(
        DeployedSegmentor(network) for network in (model.fast_copy(), model.inference_copy())
    )


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


def beside(contestants, times, image):
    other = times["smp"]
    return {
        "seconds": {name: round(statistics.median(taken), 4) for name, taken in times.items()},
        "over_smp": {
            name: round(statistics.median(a / b for a, b in zip(taken, other, strict=True)), 3)
            for name, taken in times.items()
            if name != "smp"
        },
        "gigaflops": {name: gigaflops(contestants[name], image) for name in ("ours", "smp")},
        "parameters": {
            name: sum(p.numel() for p in contestants[name].parameters())
            for name in ("ours_unfolded", "smp")
        },
    }


def contest(decoder, **options):
    fast, plain = ours(decoder)
    other = theirs(**options)
    return {
        "ours": fast,
        "ours_unfolded": plain,
        "smp": other,
        "smp_channels_last": copy.deepcopy(other).to(memory_format=torch.channels_last),
    }


def measure(side, rounds):
    torch.set_num_threads(1)
    contests = {
        "separable": contest("deeplabv3plus_separable"),
        "plain": contest("deeplabv3plus", decoder_aspp_separable=False),
    }
    image = torch.rand(BATCH, 3, side, side)
    times = {kind: {name: [] for name in entrants} for kind, entrants in contests.items()}
    for turn in range(rounds + 1):
        for kind, contestants in contests.items():
            for name, network in contestants.items():
                taken = seconds(network, image)
                if turn:  # the first one warms up
                    times[kind][name].append(taken)
    return {kind: beside(contests[kind], times[kind], image) for kind in contests}


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

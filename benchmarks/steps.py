"""Process time of a training step of several recipes, measured in turns on the same images.

    python benchmarks/steps.py supervised_camvid_small label_pretrain_camvid_small:pretrain

A recipe with stages is followed by a colon and the stage. Images are random; forward pass, loss,
backward pass and optimiser step are timed, loading and augmentation are not. Each recipe's time is
the median over the turns, and the overhead is that of the turn-by-turn ratio to the first recipe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from pixelcontrast.core.types import Batch
from pixelcontrast.data import Stream
from pixelcontrast.engine.config import RunConfig
from pixelcontrast.engine.prepare import refuse_unknown
from pixelcontrast.methods import method_class
from pixelcontrast.methods.base import Task
from pixelcontrast.models import build_segmentor
from pixelcontrast.recipes import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recipes", nargs="+", metavar="RECIPE[:STAGE]")
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: stepper(settings(name), arguments.classes) for name in arguments.recipes}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.turns + 1):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn:  # the first turn fills caches
                times[name].append(time.process_time() - started)
    base = times[arguments.recipes[0]]
    for name, values in times.items():
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        row = {"recipe": name, "seconds": round(statistics.median(values), 4)}
        print(json.dumps(row | {"ratio": round(ratio, 3)}))


def settings(name: str) -> RunConfig:
    """The configuration of a recipe, or of one of its stages."""
    recipe, _, wanted = name.partition(":")
    config = refuse_unknown(load_recipe(recipe))
    return next((s.config for s in config.stages if s.name == wanted), config)


def stepper(config: RunConfig, classes: int) -> Callable[[], None]:
    """One training step of a recipe's method on a fixed batch, ready to be called."""
    cls = method_class(config.method_name)
    torch.manual_seed(0)
    network = build_segmentor(config.model, classes, embedding=cls.embedding_head(config.method))
    method = cls(config.method, network, Task(classes, 255, config.train.steps), config.optim)
    if config.train.channels_last:
        method.to(memory_format=torch.channels_last)
    optimizer = method.configure_optimizers()["optimizer"]
    batch = {stream.name: images(stream, config, classes) for stream in cls.streams}

    def step() -> None:
        optimizer.zero_grad()
        method.losses(batch).total.backward()
        optimizer.step()
        method.after_step()
        method.batch_index += 1

    return step


def images(stream: Stream, config: RunConfig, classes: int) -> Batch:
    """Random images with blocks of random labels."""
    count, (height, width) = config.train.batch, config.view.crop
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(
        0, classes, (count, -(-height // 24), -(-width // 24)), generator=generator
    )
    mask = blocks.repeat_interleave(24, 1).repeat_interleave(24, 2)[:, :height, :width]
    shape = (count, 3, height, width)
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return Batch(
        image=image,
        valid=torch.ones(count, height, width, dtype=torch.bool),
        index=torch.arange(count),
        ids=tuple(map(str, range(count))),
        geometry=torch.eye(2, 3).expand(count, 2, 3),
        mask=mask.to(torch.uint8) if stream.labelled else None,
        strong=(255 - image,) * stream.strong_views,
    )


if __name__ == "__main__":
    main()

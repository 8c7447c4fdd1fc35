"""The data order as a pure function of (seed, stream, step)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.seeding import seed_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Draw = tuple[int, int]
"""(index of the sample, seed of its augmentation)."""


class StepSampler(Sampler[list[Draw]]):
    """Batches of (index, draw seed) for every step of a run.

    The stream is an endless row of epochs, each a permutation of all samples, cut into global
    batches; batches run across the border of two epochs, so nothing is dropped and every sample
    comes equally often. Rank r of k takes the r-th of k equal parts of each global batch: k
    processes together see exactly the images, and the augmentations, that one process sees.

    Args:
        count: number of samples in the stream.
        batch_size: global batch size, divisible by `world_size`.
        steps: number of batches in the whole run.
        seed: seed of the run.
        stream: name of the stream; streams of different names are shuffled independently.
        start_step: steps already done; iteration begins there, after a resume.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        steps: int,
        seed: int,
        stream: str,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if count < 1:
            raise DataError(
                f"stream {stream!r} has no images", fix="check the split that feeds this stream"
            )
        if batch_size < 1 or batch_size % world_size:
            raise ConfigError(
                f"a batch of {batch_size} cannot be shared by {world_size} process(es)",
                fix=f"use a positive batch size that is a multiple of {world_size}",
            )
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} does not exist among {world_size} processes")
        if not 0 <= start_step <= steps:
            raise ConfigError(
                f"cannot start at step {start_step} of {steps}",
                fix="raise the number of steps to go on training",
            )
        self.count = count
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.stream = stream
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Steps of the whole run, not of the rest: trainers count batches from the first step."""
        return self.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self.start_step, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """This rank's part of the batch of one step."""
        share = self.batch_size // self.world_size
        positions = range(self.rank * share, (self.rank + 1) * share)
        return [
            (
                self._index(step * self.batch_size + position),
                seed_for(self.seed, self.stream, step, position),
            )
            for position in positions
        ]

    def _index(self, place: int) -> int:
        epoch, offset = divmod(place, self.count)
        order = self._orders.get(epoch)
        if order is None:
            rng = np.random.default_rng(seed_for(self.seed, self.stream, "epoch", epoch))
            order = rng.permutation(self.count)
            # A batch spans few epochs unless the stream is tiny: keep the latest ones only.
            for old in [known for known in self._orders if known < epoch - 1]:
                del self._orders[old]
            self._orders[epoch] = order
        return int(order[offset])

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


class EpochSampler(Sampler[list[Draw]]):
    """Batches of (index, epoch) for methods that begin anew at every epoch.

    An epoch is one permutation of all images in whole batches: the last one is filled up from the
    front of the same permutation, so that batches never mix two epochs and all have one size.
    Rank r of k takes the r-th of k equal parts of each batch.

    Args:
        count: number of images.
        batch_size: global batch size, divisible by `world_size`.
        steps: number of batches in the whole run.
        epoch_steps: batches of an epoch; `ceil(count / batch_size)` shows each image once.
        seed: seed of the run.
        stream: name of the stream.
        start_step: steps already done.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        count: int,
        *,
        batch_size: int,
        steps: int,
        epoch_steps: int,
        seed: int,
        stream: str,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        # Checks the numbers, and keeps the one rule of how ranks share a batch.
        self._plain = StepSampler(
            count,
            batch_size=batch_size,
            steps=steps,
            seed=seed,
            stream=stream,
            start_step=start_step,
            rank=rank,
            world_size=world_size,
        )
        self.epoch_steps = epoch_steps
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Steps of the whole run, not of the rest."""
        return self._plain.steps

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in range(self._plain.start_step, self._plain.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[Draw]:
        """This rank's part of the batch of one step."""
        plain = self._plain
        epoch, number = divmod(step, self.epoch_steps)
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(plain.count, plain.seed, plain.stream, epoch))
        share = plain.batch_size // plain.world_size
        first = number * plain.batch_size + plain.rank * share
        order = self._order[1]
        return [(int(order[place % plain.count]), epoch) for place in range(first, first + share)]


def epoch_order(count: int, seed: int, stream: str, epoch: int) -> NDArray[np.int64]:
    """A permutation of `count` images that depends on seed, stream and epoch alone."""
    return np.random.default_rng(seed_for(seed, stream, "epoch", epoch)).permutation(count)


def pass_batches(
    order: NDArray[np.int64], epoch: int, *, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[Draw]]:
    """Every image once, in `order`: this rank's part of each global batch.

    All ranks get equally many batches. The last ones may hold fewer images, or none on some ranks.
    """
    batches = []
    for start in range(0, len(order), batch_size):
        part = np.array_split(order[start : start + batch_size], world_size)[rank]
        batches.append([(int(index), epoch) for index in part])
    return batches

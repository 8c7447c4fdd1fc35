"""The training loaders, made in the process that uses them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import ColourConfig, build_pair_loader, build_train_loader, open_reader
from pixelcontrast.data.sampler import EpochSampler

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from pixelcontrast.core.types import Batch
    from pixelcontrast.data import Sample, Stream
    from pixelcontrast.data.cache import Reader
    from pixelcontrast.data.loaders import BatchLoader
    from pixelcontrast.engine.config import RunConfig, TrainConfig
    from pixelcontrast.engine.sources import Sources


class StreamData(LightningDataModule):
    """One loader per stream a method asks for, starting where the run stands."""

    def __init__(self, config: RunConfig, sources: Sources, streams: tuple[Stream, ...]) -> None:
        super().__init__()
        self.config = config
        self.sources = sources
        self.streams = streams
        self._readers: dict[str, Reader] = {}

    def samples(self, stream: Stream) -> tuple[Sample, ...]:
        """The images of a stream."""
        return stream_samples(self.sources, self.streams, stream)

    def reader(self, stream: Stream) -> Reader:
        """The pixels of a stream of pairs, for all that look at them."""
        if stream.name not in self._readers:
            data = self.config.data
            self._readers[stream.name] = open_reader(
                self.samples(stream),
                self.sources.dataset.info,
                cache=data.cache,
                folder=data.cache_folder,
                masks=False,
            )
        return self._readers[stream.name]

    def train_dataloader(self) -> CombinedLoader:
        """Batches by stream name, all streams equally long."""
        train, data = self.config.train, self.config.data
        trainer = self.trainer
        assert trainer is not None  # Lightning attaches it before it asks
        loaders = {
            stream.name: self._pairs(stream, trainer)
            if stream.pair is not None
            else build_train_loader(
                stream_samples(self.sources, self.streams, stream),
                self.sources.dataset.info,
                stream=stream
                if stream.labelled
                else replace(stream, hidden_masks=data.hidden_masks),
                view=self.config.view,
                strong=self.config.strong,
                batch_size=stream_batch(train, stream),
                steps=train.steps * train.accumulate,
                seed=self.config.seed,
                start_step=trainer.global_step * train.accumulate,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                workers=data.workers,
                cache=data.cache,
                cache_folder=data.cache_folder,
                pin_memory=trainer.strategy.root_device.type == "cuda",
            )
            for stream in self.streams
        }
        return CombinedLoader(loaders, "min_size")

    def _pairs(self, stream: Stream, trainer: Trainer) -> BatchLoader[Batch]:
        """Paired views; an epoch shows every image once, and its last batch is filled up."""
        train, data = self.config.train, self.config.data
        assert stream.pair is not None
        samples = self.samples(stream)
        sampler = EpochSampler(
            len(samples),
            batch_size=stream_batch(train, stream),
            steps=train.steps * train.accumulate,
            epoch_steps=epoch_steps(train, self.sources, self.streams) * train.accumulate,
            seed=self.config.seed,
            stream=stream.name,
            start_step=trainer.global_step * train.accumulate,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return build_pair_loader(
            samples,
            self.reader(stream),
            sampler,
            pairing=stream.pair,
            size=self.config.view.crop,
            colour=self.config.strong,
            seed=self.config.seed,
            world_size=trainer.world_size,
            workers=data.workers,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )


def stream_batch(train: TrainConfig, stream: Stream) -> int:
    """Images of a stream per step, over all processes."""
    return train.batch if stream.labelled else train.batch_unlabeled or train.batch


def stream_samples(
    sources: Sources, streams: tuple[Stream, ...], stream: Stream
) -> tuple[Sample, ...]:
    """The images of a stream.

    Beside a labelled stream, an unlabelled one shows the images whose masks are not used; alone,
    it shows all training images.

    Raises:
        DataError: there are none.
    """
    if stream.labelled:
        samples = sources.labeled
    elif any(other.labelled for other in streams):
        samples = sources.unlabeled
    else:
        samples = (*sources.labeled, *sources.unlabeled)
    if not samples and stream.labelled:
        raise DataError(
            "the method needs labelled images and there are none",
            where=sources.dataset.root,
            fix="add masks, or choose a method that learns without: pixelcontrast list methods",
        )
    if not samples:
        raise DataError(
            "the method learns from unlabelled images too and there are none: "
            f"all {len(sources.labeled)} training images are labelled",
            where="data.labeled",
            fix="set data.labeled to the count or the share of images whose masks may be used, "
            "add images without masks, or set method.name=supervised",
        )
    return samples


def require_distortion(config: RunConfig, streams: tuple[Stream, ...]) -> None:
    """Refuse strong views that would equal the weak ones.

    Raises:
        ConfigError: a stream has strong views and no distortion is set.
    """
    if config.strong == ColourConfig() and any(stream.strong_views for stream in streams):
        raise ConfigError(
            f"method {config.method_name!r} compares weak with strong views, and the section "
            "'strong' distorts nothing",
            where="strong",
            fix="set strong.brightness=0.5 and others as in the recipe 'unimatch'",
        )


def epoch_steps(train: TrainConfig, sources: Sources, streams: tuple[Stream, ...]) -> int:
    """Steps in which every stream shows all of its images at least once."""
    return max(
        ceil(
            len(stream_samples(sources, streams, stream))
            / (stream_batch(train, stream) * train.accumulate)
        )
        for stream in streams
    )


def describe_streams(config: RunConfig, sources: Sources, streams: tuple[Stream, ...]) -> str:
    """One sentence on how often each stream's images are seen."""
    train = config.train
    parts = []
    for stream in streams:
        count = len(stream_samples(sources, streams, stream))
        batch = stream_batch(train, stream) * train.accumulate
        kind = "labelled" if stream.labelled else "unlabelled"
        parts.append(f"{count} {kind} images {train.steps * batch / count:.1f} times")
    steps = epoch_steps(train, sources, streams)
    return f"{train.steps} steps, {steps} an epoch: " + ", ".join(parts)

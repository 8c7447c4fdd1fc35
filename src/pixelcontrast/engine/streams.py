"""The training loaders, made in the process that uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data import build_train_loader

if TYPE_CHECKING:
    from pixelcontrast.data import Sample, Stream
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.sources import Sources


class StreamData(LightningDataModule):
    """One loader per stream a method asks for, starting where the run stands."""

    def __init__(self, config: RunConfig, sources: Sources, streams: tuple[Stream, ...]) -> None:
        super().__init__()
        self.config = config
        self.sources = sources
        self.streams = streams

    def train_dataloader(self) -> CombinedLoader:
        """Batches by stream name, all streams equally long."""
        train, data = self.config.train, self.config.data
        trainer = self.trainer
        assert trainer is not None  # Lightning attaches it before it asks
        loaders = {
            stream.name: build_train_loader(
                self._samples(stream),
                self.sources.dataset.info,
                stream=stream,
                view=self.config.view,
                strong=self.config.strong,
                batch_size=train.batch if stream.labelled else train.batch_unlabeled or train.batch,
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

    def _samples(self, stream: Stream) -> tuple[Sample, ...]:
        """The images of a stream: unlabelled ones also use the labelled images without masks."""
        if stream.labelled:
            return self.sources.labeled
        samples = self.sources.unlabeled or self.sources.labeled
        if not samples:
            raise ConfigError(f"stream {stream.name!r} has no images")
        return samples

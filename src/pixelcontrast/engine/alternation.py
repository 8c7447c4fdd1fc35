"""Clustering and labelling between the epochs of a method that learns from its own clusters."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback

from pixelcontrast.core.distributed import rank, wait_for_all, world_size
from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.data import Pairing, build_pair_loader
from pixelcontrast.data.label_maps import LabelMaps
from pixelcontrast.data.pairs import PLAIN
from pixelcontrast.data.sampler import epoch_order, pass_batches
from pixelcontrast.methods.cluster_statistics import collapse_warning

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import Trainer
    from rich.console import Console

    from pixelcontrast.core.types import Batch
    from pixelcontrast.engine.callbacks import Journal
    from pixelcontrast.engine.folder import RunFolder
    from pixelcontrast.engine.streams import StreamData
    from pixelcontrast.methods.clustering import ClusteringMethod


class Alternation(Callback):
    """Calls the phases of an epoch (cluster, label, train) at the steps where epochs begin.

    Centroids and labels of an epoch lie in a folder of their own, with a hash of the network they
    were made with. A run that was killed in whatever phase and goes on from its checkpoint finds
    what was finished, makes the rest anew from the same numbers, and so equals an unbroken one.

    Args:
        folder: the run.
        data: its images and settings.
        journal: does not count these phases as training time, and logs their outcome.
        console: where a line for each epoch is printed.
    """

    def __init__(
        self,
        folder: RunFolder,
        data: StreamData,
        journal: Journal,
        console: Console,
    ) -> None:
        self.folder = folder
        self.data = data
        self.journal = journal
        self.console = console
        self.origin: str | None = None
        """Where the labels of the current epoch come from."""
        self._epoch = -1
        self._passes: Passes | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin the epoch of this step, if that has not been done."""
        method: ClusteringMethod = pl_module
        epoch, position = divmod(trainer.global_step, method.task.epoch_steps)
        if epoch == self._epoch:
            return
        started = time.perf_counter()
        if position == 0:
            self._begin(trainer, method, epoch)
        else:
            self._go_on(method, epoch)
        self._epoch = epoch
        self.journal.pause(time.perf_counter() - started)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        """After the last step, cluster images without distortion for the final classifier."""
        method: ClusteringMethod = pl_module
        if trainer.global_step < trainer.max_steps or not method.config.final:
            return
        started = time.perf_counter()
        passes, epoch = self._all(method), self._epoch + 1
        with _precision(trainer):
            method.finish(epoch, passes.plain(epoch), passes.count)
        self.journal.pause(time.perf_counter() - started)

    def state_dict(self) -> dict[str, Any]:
        """What the labels that training goes on with have to come from."""
        return {"origin": self.origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.origin = state_dict["origin"]

    def _begin(self, trainer: Trainer, method: ClusteringMethod, epoch: int) -> None:
        started = time.perf_counter()
        self.origin = method.origin(epoch)
        labels = self._labels(method, epoch)
        centroids = self._stored_centroids(labels.folder)
        if centroids is not None:
            method.kmeans.load_state_dict(centroids)
        values = self._finished(labels) if centroids is not None else None
        if values is None:
            passes = self._all(method)
            with _precision(trainer):
                if centroids is None:
                    method.cluster(epoch, passes.views(epoch), passes.count)
                    self._store_centroids(labels.folder, method)
                if rank() == 0:
                    labels.create()
                wait_for_all()
                counts, stats = method.label(epoch, passes.views(epoch), labels)
            wait_for_all()
            if rank() == 0:
                labels.seal(self.origin, {"counts": counts, "stats": stats})
            wait_for_all()
            values = labels.opened(self.origin)
        method.use_labels(labels, values["counts"], values["stats"])
        method.begin_epoch(epoch, trainer.optimizers[0])
        self._remove_old(epoch, method.task.epoch_steps)
        if rank() == 0:
            seconds = time.perf_counter() - started
            self._announce(method, epoch, trainer.global_step, values["stats"], seconds)

    def _go_on(self, method: ClusteringMethod, epoch: int) -> None:
        """Take up the labels of an epoch that a resumed run is in the middle of."""
        if self.origin is None:
            raise CheckpointError("the checkpoint names no cluster labels", where=self.folder.last)
        labels = self._labels(method, epoch)
        values = labels.opened(self.origin)
        method.use_labels(labels, values["counts"], values["stats"])

    def _all(self, method: ClusteringMethod) -> Passes:
        if self._passes is None:
            self._passes = Passes(self.data, method)
        return self._passes

    def _labels(self, method: ClusteringMethod, epoch: int) -> LabelMaps:
        ids = [sample.id for sample in self.data.samples(method.streams[0])]
        return LabelMaps(self._epoch_folder(epoch), ids, method.grid, method.stored())

    def _finished(self, labels: LabelMaps) -> dict[str, Any] | None:
        try:
            return labels.opened(str(self.origin))
        except CheckpointError:
            return None

    def _epoch_folder(self, epoch: int) -> Path:
        return self.folder.root / "labels" / f"epoch_{epoch:05d}"

    def _stored_centroids(self, folder: Path) -> dict[str, Any] | None:
        try:
            stored = torch.load(folder / "centroids.pt", map_location="cpu", weights_only=True)
        except Exception:  # a missing file, or whatever a damaged one raises
            return None
        found: dict[str, Any] | None = stored["state"] if stored["origin"] == self.origin else None
        return found

    def _store_centroids(self, folder: Path, method: ClusteringMethod) -> None:
        if rank() == 0:
            with atomic_path(folder / "centroids.pt") as temporary:
                torch.save({"origin": self.origin, "state": method.kmeans.state_dict()}, temporary)

    def _remove_old(self, epoch: int, epoch_steps: int) -> None:
        """Remove what no checkpoint to resume from needs any more."""
        if rank() != 0 or not self.folder.last.is_file():
            return
        saved = torch.load(self.folder.last, map_location="cpu", weights_only=True, mmap=True)
        oldest = self._epoch_folder(min(epoch, saved["global_step"] // epoch_steps))
        for folder in oldest.parent.glob("epoch_*"):
            if folder.name < oldest.name:
                shutil.rmtree(folder, ignore_errors=True)

    def _announce(
        self,
        method: ClusteringMethod,
        epoch: int,
        step: int,
        stats: dict[str, float],
        seconds: float,
    ) -> None:
        line = {**{f"stat/{k}": v for k, v in stats.items()}, "epoch": float(epoch)}
        # Of the first step on: a run resumed at `step` begins the epoch, and says so, once more.
        self.journal.write("cluster", step + 1, {**line, "cluster_seconds": round(seconds, 3)})
        agreement = stats.get("view_agreement")
        self.console.print(
            f"epoch {epoch}: clustered in {seconds:.1f} s, largest cluster "
            f"{100 * stats['largest_cluster_view1']:.0f} %"
            + (f", views agree on {100 * agreement:.0f} %" if agreement is not None else ""),
            highlight=False,
        )
        if (warning := collapse_warning(stats, method.sizes())) is not None:
            self.console.print(f"note: {warning}", style="yellow", highlight=False)


class Passes:
    """All images once, in batches on the method's device, for clustering and labelling.

    Args:
        data: the images and settings of the run.
        method: tells the views and the device.
    """

    def __init__(self, data: StreamData, method: ClusteringMethod) -> None:
        self.data = data
        self.method = method
        self.stream = method.streams[0]
        self.count = len(data.samples(self.stream))

    def views(self, epoch: int) -> Iterator[Batch]:
        """The views of an epoch, as training sees them."""
        assert self.stream.pair is not None
        return self._batches(epoch, self.stream.pair, plain=False)

    def plain(self, epoch: int) -> Iterator[Batch]:
        """The images as they are."""
        return self._batches(epoch, Pairing(PLAIN, self.method.grid, second=False), plain=True)

    def _batches(self, epoch: int, pairing: Pairing, *, plain: bool) -> Iterator[Batch]:
        config, device = self.data.config, self.method.device
        loader = build_pair_loader(
            self.data.samples(self.stream),
            self.data.reader(self.stream),
            pass_batches(
                epoch_order(self.count, config.seed, "clustering", epoch),
                epoch,
                batch_size=config.method.kmeans.batch,
                rank=rank(),
                world_size=world_size(),
            ),
            pairing=pairing,
            size=config.view.crop,
            colour=None if plain else config.strong,
            seed=config.seed,
            world_size=world_size(),
            workers=config.data.workers,
            pin_memory=device.type == "cuda",
        )
        return (batch.to(device, non_blocking=True) for batch in loader)


def _precision(trainer: Trainer) -> Any:
    """The autocast that training uses, for passes outside of a step."""
    return trainer.strategy.precision_plugin.forward_context()

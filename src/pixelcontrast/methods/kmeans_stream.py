"""Mini-batch k-means over the features of all images, in one pass.

Letters: B batch, D embedding, N pixels, h w feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcontrast.core.distributed import gather_rows
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.memory import MiniBatchKMeans


@dataclass(frozen=True, slots=True)
class KMeansConfig:
    """How features are clustered."""

    batch: int = 256
    """Images of a batch of the clustering and labelling passes, over all processes (PiCIE)."""
    init_batches: int = 20
    """Batches on which full k-means is run first (PiCIE's scripts)."""
    iterations: int = 20
    """Of full k-means (PiCIE's script for COCO)."""
    restarts: int = 1
    """Full k-means begins that many times from other pixels, and the tightest clusters are kept
    (ours; the released code begins once)."""
    group: int = 1
    """Batches after which the centroids move (PiCIE's scripts; the code's own default is 30)."""
    init_pixels: int = 1_000_000
    """Pixels kept for full k-means, drawn uniformly from each image; the released code keeps all,
    33 million on COCO."""

    def __post_init__(self) -> None:
        for name in ("batch", "init_batches", "restarts", "group", "init_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError("at least 1 is needed", where=f"method.kmeans.{name}")
        if self.iterations < 0:
            raise ConfigError("cannot be negative", where="method.kmeans.iterations")


class KMeansStream:
    """Full k-means on the first batches of a pass, running means after them.

    All processes must add equally many batches, some of them possibly empty.

    Args:
        kmeans: for each view the clusterings of its features.
        options: sizes of the two parts.
        images: of the whole pass, over all processes.
        seed: of the run.
        epoch: with the seed and an image's id it names the pixels that are drawn from the image.
    """

    def __init__(
        self,
        kmeans: Sequence[Sequence[MiniBatchKMeans]],
        options: KMeansConfig,
        *,
        images: int,
        seed: int,
        epoch: int,
    ) -> None:
        self.kmeans = kmeans
        self.options = options
        self.key = (seed, epoch)
        first = min(images, options.init_batches * options.batch)
        self._kept = max(1, options.init_pixels // first)
        self._first: list[list[tuple[Tensor, Tensor]]] = []
        self._group: list[list[Tensor]] = []
        self._ids: list[str] = []
        self._started = False

    def add(self, ids: Sequence[str], views: Sequence[Tensor]) -> None:
        """Take in a batch.

        Args:
            ids: B images.
            views: (B, D, h, w) features of each view.

        Raises:
            DataError: fewer pixels than clusters.
            TrainingError: features that are not finite.
        """
        self._ids += ids
        if self._started:
            self._group.append([rows_of(view) for view in views])
            if len(self._group) == self.options.group:
                self._move()
            return
        self._first.append([self._drawn(ids, view) for view in views])
        if len(self._first) == self.options.init_batches:
            self._start()

    def finish(self) -> None:
        """Take in what a pass has left: its last group, or all of it if it was short.

        Raises:
            DataError: fewer pixels than clusters.
            TrainingError: features that are not finite.
        """
        if not self._started:
            self._start()
        elif self._group:
            self._move()

    def _start(self) -> None:
        for view, clusterings in enumerate(self.kmeans):
            rows = torch.cat([batch[view][0] for batch in self._first])
            keys = torch.cat([batch[view][1] for batch in self._first])
            for means in clusterings:
                self._cluster(means, rows, keys)
        self._started, self._first, self._ids = True, [], []

    def _cluster(self, means: MiniBatchKMeans, rows: Tensor, keys: Tensor) -> None:
        """Full k-means from several beginnings, of which the tightest result stays."""
        size = means.num_clusters
        drawn = highest_rows(rows, keys, size * self.options.restarts)
        tries = max(1, len(drawn) // size)
        best: dict[str, Tensor] = {}
        for init in drawn[: tries * size].chunk(tries):
            means.start(rows, init=init, iterations=self.options.iterations, where=self._where())
            if not best or means.distance < best["distance"]:
                best = {name: value.clone() for name, value in means.state_dict().items()}
        means.load_state_dict(best)

    def _move(self) -> None:
        for view, clusterings in enumerate(self.kmeans):
            rows = torch.cat([batch[view] for batch in self._group])
            for means in clusterings:
                means.update(rows, where=self._where())
        self._group, self._ids = [], []

    def _drawn(self, ids: Sequence[str], features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) random pixels of each image, and the random numbers (N,) that chose them."""
        cells = features[0, 0].numel() if len(features) else 1
        keys = torch.empty(len(ids), cells, dtype=torch.float64)
        for place, name in enumerate(ids):
            # Belongs to the image, so that batches and processes make no difference.
            keys[place].uniform_(generator=generator_for("cpu", *self.key, name))
        best, cell = keys.topk(min(self._kept, cells), dim=1)
        index = cell[:, :, None].to(features.device).expand(-1, -1, features.shape[1])
        rows = features.flatten(2).mT.gather(1, index).flatten(0, 1)
        return rows, best.flatten().to(features.device)

    def _where(self) -> str:
        return ", ".join(self._ids[:8]) + (", ..." if len(self._ids) > 8 else "")


def rows_of(features: Tensor) -> Tensor:
    """(B, D, h, w) -> (N, D)."""
    return features.flatten(2).mT.flatten(0, 1)


def highest_rows(rows_ND: Tensor, keys_N: Tensor, count: int) -> Tensor:
    """The rows of all processes with the highest keys: a random choice that no split changes."""
    best = keys_N.topk(min(count, len(keys_N)))
    keys, rows = gather_rows(best.values), gather_rows(rows_ND[best.indices])
    return rows[keys.topk(min(count, len(keys))).indices]

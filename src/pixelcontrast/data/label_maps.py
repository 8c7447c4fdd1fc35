"""Label maps of a whole data set on disk, as arrays that are mapped into memory.

Letters: n images, h w feature map.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.core.files import write_json

_CHUNK_ROWS = 256


class LabelMaps:
    """Maps (n, h, w) by name, in rows that belong to image ids, with proof of where they are from.

    One byte a cell for up to 256 labels, two beyond. Several processes write rows of one set of
    files; the folder must be one that all of them see.

    Args:
        folder: where the files lie.
        ids: the images; rows follow their sorted order, whatever the order of the listing.
        size: (h, w).
        labels: for each map its number of labels.
    """

    def __init__(
        self, folder: Path, ids: Sequence[str], size: tuple[int, int], labels: Mapping[str, int]
    ) -> None:
        self.folder = folder
        self.ids = sorted(ids)
        self.rows = {name: row for row, name in enumerate(self.ids)}
        self.size = size
        self.labels = dict(labels)
        self._maps: dict[str, NDArray[Any]] = {}

    def create(self) -> None:
        """New files; a finished set in the folder is no longer one. By one process alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seal.unlink(missing_ok=True)
        for name, labels in self.labels.items():
            kind = np.uint8 if labels <= 256 else np.int16
            open_memmap(
                self._file(name), mode="w+", dtype=kind, shape=(len(self.ids), *self.size)
            ).flush()

    def write(self, name: str, ids: Sequence[str], maps: NDArray[Any]) -> None:
        """Store the maps (len(ids), h, w) of some images."""
        if name not in self._maps:
            self._maps[name] = open_memmap(self._file(name), mode="r+")
        self._maps[name][[self.rows[i] for i in ids]] = maps

    def flush(self) -> None:
        """Bring what this process wrote to the files."""
        for array in self._maps.values():
            array.flush()  # type: ignore[attr-defined]  # a memory map
        self._maps.clear()

    def seal(self, origin: str, values: Mapping[str, Any]) -> None:
        """Declare the set finished, once all processes have flushed. By one process alone.

        Args:
            origin: what the labels were made with; asked for when they are opened.
            values: whatever belongs to the set, as JSON values.
        """
        write_json(self._seal, {"origin": origin, "checksum": self._checksum(), **values})

    def opened(self, origin: str) -> dict[str, Any]:
        """Open a finished set for reading and return the values of `seal`.

        Raises:
            CheckpointError: it is missing, damaged, or of another origin.
        """
        try:
            found: dict[str, Any] = json.loads(self._seal.read_text(encoding="utf-8"))
            same = found["origin"] == origin
            sound = found["checksum"] == self._checksum()
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise self._unusable("are missing or incomplete") from error
        if not same:
            raise self._unusable("were made with other weights or for another epoch")
        if not sound:
            raise self._unusable("are damaged")
        self._maps = {name: np.load(self._file(name), mmap_mode="r") for name in self.labels}
        return found

    def read(self, name: str, ids: Sequence[str]) -> NDArray[np.int64]:
        """(len(ids), h, w) the labels of some images."""
        return np.asarray(self._maps[name][[self.rows[i] for i in ids]], np.int64)

    @property
    def _seal(self) -> Path:
        return self.folder / "labels.json"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _checksum(self) -> str:
        digest = hashlib.blake2b("\n".join(self.ids).encode(), digest_size=16)
        for name in sorted(self.labels):
            array = np.load(self._file(name), mmap_mode="r")
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            for start in range(0, len(array), _CHUNK_ROWS):
                digest.update(array[start : start + _CHUNK_ROWS].tobytes())
        return digest.hexdigest()

    def _unusable(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"the cluster labels of this epoch {why}",
            where=self.folder,
            fix="resume from a checkpoint at the beginning of an epoch, or start with --force",
        )

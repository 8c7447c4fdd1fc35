"""Decoded images and masks kept for the next epoch: decoding is the dearest part of loading.

PNG decoding takes longer than every augmentation together, so a cache of plain uint8 arrays is
worth more than any faster augmentation (`benchmarks/loader.py` measures both).
"""

from __future__ import annotations

import hashlib
import mmap
import multiprocessing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.files import atomic_path
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.reading import image_size, read_image, read_mask

CacheKind = Literal["none", "memory", "disk"]
Array = NDArray[np.uint8]


class Reader(Protocol):
    """Gives the pixels of the samples of one stream."""

    def image(self, index: int) -> Array:
        """(H, W, 3) RGB; not to be written to."""

    def mask(self, index: int) -> Array:
        """(H, W) class ids; not to be written to."""


def open_reader(
    samples: Sequence[Sample],
    info: DatasetInfo,
    *,
    cache: CacheKind = "none",
    folder: Path | None = None,
    masks: bool = True,
) -> Reader:
    """The reader for `samples` with the cache asked for.

    Args:
        samples: the images of the stream.
        info: how masks are stored.
        cache: "none" decodes every time; "memory" keeps decoded arrays in memory that all workers
            of this process share; "disk" keeps them as memory-mapped files.
        folder: where the disk cache lives; it may be deleted at any time no run uses it.
        masks: whether masks will be read, so that memory can be set aside for them.

    Raises:
        ConfigError: the cache needs a folder, or more memory than is free.
    """
    plain = FileReader(samples, info)
    if cache == "memory":
        return MemoryCache(plain, masks=masks)
    if cache == "disk":
        if folder is None:
            raise ConfigError("the disk cache has no folder", fix="set data.cache_folder")
        return DiskCache(plain, folder)
    return plain


class FileReader:
    """Decodes the files each time."""

    def __init__(self, samples: Sequence[Sample], info: DatasetInfo) -> None:
        self.samples = samples
        self.info = info

    def image(self, index: int) -> Array:
        """Decodes the image."""
        return read_image(self.samples[index].image)

    def mask(self, index: int) -> Array:
        """Decodes the mask and applies the label map."""
        info = self.info
        if self.samples[index].decoded:
            info = replace(info, label_map=None)
        return read_mask(self.mask_path(index), info)

    def mask_path(self, index: int) -> Path:
        """The file of the mask."""
        sample = self.samples[index]
        if sample.mask is None:
            raise DataError("the image has no mask", where=sample.image)
        return sample.mask


class MemoryCache:
    """Arrays in anonymous shared memory: worker processes forked later fill and read the same.

    Space for all arrays is set aside at once (from the sizes in the file headers), but the system
    hands out pages only when they are first written.
    """

    def __init__(self, source: FileReader, *, masks: bool) -> None:
        self._source = source
        sizes = [image_size(sample.image) for sample in source.samples]
        shapes: list[tuple[int, ...]] = [(height, width, 3) for height, width in sizes]
        if masks:
            shapes += sizes
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        total = int(ends[-1]) if len(ends) else 0
        _require_memory(total)
        self._shapes = shapes
        self._starts = [0, *ends[:-1].tolist()]
        self._pool = np.frombuffer(mmap.mmap(-1, max(1, total)), dtype=np.uint8)
        self._filled = np.frombuffer(mmap.mmap(-1, max(1, len(shapes))), dtype=np.uint8)
        # The lock orders "array written" before "marked as filled" on every processor.
        self._lock = multiprocessing.Lock()

    def image(self, index: int) -> Array:
        """Decoded at most once in each process that asks at the same moment, else from memory."""
        if not self._has(index):
            self._put(index, self._source.image(index), self._source.samples[index].image)
        return self._slot(index)

    def mask(self, index: int) -> Array:
        """As `image`."""
        slot = len(self._source.samples) + index
        if not self._has(slot):
            self._put(slot, self._source.mask(index), self._source.mask_path(index))
        return self._slot(slot)

    def _has(self, slot: int) -> bool:
        with self._lock:
            return bool(self._filled[slot])

    def _slot(self, slot: int) -> Array:
        shape, start = self._shapes[slot], self._starts[slot]
        view = self._pool[start : start + int(np.prod(shape))].reshape(shape)
        view.flags.writeable = False
        return view

    def _put(self, slot: int, array: Array, path: Path) -> None:
        shape, start = self._shapes[slot], self._starts[slot]
        if array.shape != shape:
            raise DataError(
                f"{array.shape[1]} x {array.shape[0]} pixels where {shape[1]} x {shape[0]} are due",
                where=path,
                fix="run `pixelcontrast data check` on the folder",
            )
        self._pool[start : start + array.size] = array.ravel()
        with self._lock:
            self._filled[slot] = 1


def _require_memory(total: int) -> None:
    free = _available_memory()
    if free is not None and total > 0.8 * free:
        raise ConfigError(
            f"the decoded images need {total / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free",
            fix="use data.cache=disk or data.cache=none",
        )


def _available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


class DiskCache:
    """One `.npy` file for each decoded array, opened as a memory map.

    A file's name is a digest of path, modification time and size of its source (and, for masks, of
    the label map), so a changed source is decoded anew. Files are written in one step: a killed run
    leaves no damaged ones.
    """

    def __init__(self, source: FileReader, folder: Path) -> None:
        self._source = source
        self._folder = folder
        info = source.info
        label_map = sorted((repr(k), v) for k, v in (info.label_map or {}).items())
        self._labels = f"{info.num_classes} {info.ignore_index} {label_map}"

    def image(self, index: int) -> Array:
        """From the map; decoded and stored first where it is missing."""
        path = self._file(self._source.samples[index].image, "image")
        return _mapped(path) if path.exists() else _store(path, self._source.image(index))

    def mask(self, index: int) -> Array:
        """As `image`."""
        path = self._file(self._source.mask_path(index), f"mask {self._labels}")
        return _mapped(path) if path.exists() else _store(path, self._source.mask(index))

    def _file(self, source: Path, kind: str) -> Path:
        try:
            state = source.stat()
        except OSError as error:
            raise DataError(
                f"cannot read: {error.strerror}", where=source, fix="restore the file"
            ) from error
        key = f"{source.absolute()}\n{state.st_mtime_ns}\n{state.st_size}\n{kind}"
        digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self._folder / digest[:2] / f"{digest}.npy"


def _mapped(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _store(path: Path, array: Array) -> Array:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    return array

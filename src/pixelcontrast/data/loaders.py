"""Loaders of training batches and of whole evaluation images."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

import cv2
import torch
from torch.utils.data import DataLoader

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.types import Batch
from pixelcontrast.data.cache import CacheKind, Reader, open_reader
from pixelcontrast.data.colour import ColourConfig
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.items import (
    EvalBatch,
    EvalDataset,
    Failure,
    PairDataset,
    Stream,
    TrainDataset,
    TrainPart,
)
from pixelcontrast.data.pairs import Pairing
from pixelcontrast.data.reading import image_size
from pixelcontrast.data.sampler import Draw, EpochSampler, StepSampler
from pixelcontrast.data.views import Size, ViewConfig

__all__ = [
    "BatchLoader",
    "EvalBatch",
    "Stream",
    "build_eval_loader",
    "build_pair_loader",
    "build_train_loader",
    "equal_size_batches",
    "resolve_workers",
]

T = TypeVar("T", covariant=True)


class BatchLoader(DataLoader[T], Generic[T]):
    """A DataLoader that raises data errors of its workers as they were, and finishes batches."""

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        for item in super().__iter__():
            if isinstance(item, Failure):
                raise item.error
            yield cast("T", item.batch() if isinstance(item, TrainPart) else item)


def build_train_loader(
    samples: Sequence[Sample],
    info: DatasetInfo,
    *,
    stream: Stream,
    view: ViewConfig,
    strong: ColourConfig | None = None,
    batch_size: int,
    steps: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int | Literal["auto"] = "auto",
    cache: CacheKind = "none",
    cache_folder: Path | None = None,
    pin_memory: bool = False,
) -> BatchLoader[Batch]:
    """Batches of one stream for steps `start_step` ... `steps` - 1.

    The bytes of a batch depend on (samples, configuration, seed, stream name, step) alone: not on
    workers, processes, or on where the run was resumed.

    Args:
        samples: the images of the stream.
        info: how masks are stored.
        stream: what is asked for.
        view: the crop and the weak colour change.
        strong: the distortion of the strong views.
        batch_size: images a step over all processes.
        steps: length of the whole run, which is also the length of the loader.
        seed: seed of the run.
        start_step: steps already done.
        rank: this process.
        world_size: number of processes.
        workers: loading processes; "auto" as `resolve_workers`.
        cache: where decoded images are kept.
        cache_folder: folder of the disk cache.
        pin_memory: page-locked batches, for copies to a GPU that overlap with work.

    Raises:
        DataError: no images, or a labelled stream with images that have no mask.
        ConfigError: settings that cannot work together.
    """
    if stream.labelled:
        _require_masks(samples, stream)
    if stream.strong_views and strong is None:
        raise ConfigError(
            f"stream {stream.name!r} needs strong views, but no distortion is set",
            fix="set `strong`, for example by the values of UniMatch",
        )
    sampler = StepSampler(
        len(samples),
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        stream=stream.name,
        start_step=start_step,
        rank=rank,
        world_size=world_size,
    )
    processes = resolve_workers(workers, world_size)
    if cache == "memory" and processes and _start_method() != "fork":
        raise ConfigError(
            "this system cannot share the memory cache between loading processes",
            fix="use data.cache=disk or data.workers=0",
        )
    reader = open_reader(samples, info, cache=cache, folder=cache_folder, masks=stream.opens_masks)
    dataset = TrainDataset(
        reader, samples, stream=stream, view=view, strong=strong, ignore_index=info.ignore_index
    )
    return BatchLoader(
        dataset, sampler=sampler, **_loader_options(processes, pin_memory=pin_memory)
    )


def build_pair_loader(
    samples: Sequence[Sample],
    reader: Reader,
    batches: EpochSampler | Sequence[list[Draw]],
    *,
    pairing: Pairing,
    size: Size,
    colour: ColourConfig | None,
    seed: int,
    world_size: int = 1,
    workers: int | Literal["auto"] = "auto",
    pin_memory: bool = False,
) -> BatchLoader[Batch]:
    """Batches of paired views (`data.pairs`), in the order of `batches`.

    Args:
        samples: the images; masks they may have are not opened.
        reader: their pixels; several loaders can share one, and its cache.
        batches: for each batch the images with their epochs, for example an `EpochSampler`.
        pairing: how the views differ.
        size: (H, W) of a view.
        colour: the distortion of each view; None: none.
        seed: seed of the run.
        world_size: number of processes.
        workers: loading processes; "auto" as `resolve_workers`.
        pin_memory: page-locked batches.
    """
    processes = min(resolve_workers(workers, world_size), len(batches))
    dataset = PairDataset(reader, samples, pairing=pairing, size=size, colour=colour, seed=seed)
    return BatchLoader(
        dataset, sampler=batches, **_loader_options(processes, pin_memory=pin_memory)
    )


def build_eval_loader(
    samples: Sequence[Sample],
    info: DatasetInfo,
    *,
    batch_size: int = 1,
    rank: int = 0,
    world_size: int = 1,
    workers: int | Literal["auto"] = "auto",
    pin_memory: bool = False,
) -> BatchLoader[EvalBatch]:
    """Every image at its own size, exactly once over all ranks, in order as far as sizes allow.

    Ranks may get different numbers of batches (none, with fewer images than ranks), so a step of
    the evaluation must not wait for other ranks.
    """
    mine = range(rank, len(samples), world_size)
    dataset = EvalDataset(samples, info)
    batches = equal_size_batches(samples, mine, batch_size)
    processes = min(resolve_workers(workers, world_size), len(batches))
    return BatchLoader(
        dataset,
        sampler=batches,
        **_loader_options(processes, pin_memory=pin_memory),
    )


def equal_size_batches(
    samples: Sequence[Sample], indices: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Groups `indices` into batches of equal image size (and all with or all without a mask).

    Sizes come from the file headers, which are not opened for a batch size of 1.
    """
    if batch_size == 1:
        return [[index] for index in indices]
    batches: list[list[int]] = []
    growing: dict[object, list[int]] = {}
    for index in indices:
        key = (image_size(samples[index].image), samples[index].mask is None)
        batch = growing.get(key)
        if batch is None:
            batch = growing[key] = []
            batches.append(batch)
        batch.append(index)
        if len(batch) == batch_size:
            del growing[key]
    return batches


def resolve_workers(workers: int | Literal["auto"], world_size: int = 1) -> int:
    """The number of loading processes: "auto" leaves one core for training, and takes at most 8.

    The cores of this machine are shared by the processes on it (LOCAL_WORLD_SIZE, as torchrun sets
    it; else all processes are taken to be here).
    """
    if workers != "auto":
        if workers < 0:
            raise ConfigError(f"data.workers = {workers}", fix="use 'auto', 0 or more")
        return workers
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, min(8, cores // max(1, local) - 1))


def _start_method() -> str:
    """How worker processes start.

    fork where the system has it by default: spawn and forkserver import the user's script again,
    which breaks scripts without a main guard, and they cannot share the memory cache. Workers
    never touch the GPU and switch OpenCV's threads off before they use it.
    """
    default = multiprocessing.get_all_start_methods()[0]
    return "fork" if default in {"fork", "forkserver"} else default


def _loader_options(workers: int, *, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "batch_size": None,  # the samplers yield whole batches
        "collate_fn": _as_is,
        "pin_memory": pin_memory,
        "num_workers": workers,
        # A DataLoader draws a seed whenever it starts: not from the generator of the process.
        "generator": torch.Generator(),
    }
    if workers:
        options |= {
            "worker_init_fn": _start_worker,
            "multiprocessing_context": _start_method(),
            # A training loader is read through once; for evaluation, forking anew costs less than
            # keeping idle processes. Only importing everything again is dear.
            "persistent_workers": _start_method() != "fork",
        }
    return options


def _as_is(item: Any) -> Any:
    return item


def _start_worker(_: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the training process
    # decides when to stop, and workers end with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _require_masks(samples: Sequence[Sample], stream: Stream) -> None:
    without = [sample.id for sample in samples if sample.mask is None]
    if without:
        shown = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        raise DataError(
            f"stream {stream.name!r} learns from masks, but {len(without)} image(s) have none",
            where=shown,
            fix="list images without masks in the split 'unlabeled'",
        )

"""The stages of a run in action: one after the other, each resumable by itself."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pixelcontrast.core.distributed import wait_for_all
from pixelcontrast.core.errors import CheckpointError, TrainingError
from pixelcontrast.core.seeding import seed_for
from pixelcontrast.engine.devices import device_of, trainer_options
from pixelcontrast.engine.fit import fit
from pixelcontrast.engine.folder import first_process, now
from pixelcontrast.engine.prepare import build_method
from pixelcontrast.engine.pseudo_labels import make_pseudo_labels, with_pseudo_labels
from pixelcontrast.engine.stages import StageConfig
from pixelcontrast.engine.streams import describe_streams

if TYPE_CHECKING:
    from rich.console import Console

    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.folder import RunFolder
    from pixelcontrast.engine.sources import Sources
    from pixelcontrast.methods.base import Method


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of a run, or the whole of a plain one, and how far it has come."""

    name: str
    settings: StageConfig
    config: RunConfig
    folder: RunFolder
    """The last stage works in the folder of the run, the others in folders below it."""
    resume: bool
    """It goes on from its checkpoint."""
    done: bool = False
    """It ended in an earlier attempt."""


def run_parts(config: RunConfig, folder: RunFolder, *, resume: bool) -> list[Part]:
    """The stages of a run in order; one for a plain run."""
    if not config.stages:
        return [Part("", StageConfig(), config, folder, resume)]
    parts = []
    for stage in config.stages:
        last = stage is config.stages[-1]
        where = folder if last else folder.stage(stage.name)
        ended = where.read_record().get("status") == "finished" and where.model.is_file()
        done = resume and ended and not last
        begun = resume and not done and where.last.is_file()
        parts.append(Part(stage.name, stage.settings, stage.config, where, begun, done))
    return parts


def refuse_impossible(parts: list[Part], sources: Sources) -> tuple[Method, list[str]]:
    """Try what could fail in any stage, and build the method of the first one.

    Returns:
        The method and sentences about its first weights.

    Raises:
        PixelContrastError: devices, networks, methods or checkpoints that cannot work.
    """
    for part in parts:
        trainer_options(part.config.train, part.config.optim, part.folder.root)
        if part.resume:
            check_checkpoint(part.folder.last)
    for part in parts[1:]:
        build_method(part.config, sources, weights_follow=True)
    return _build(parts[0], sources, None)


def run_stages(
    parts: list[Part], sources: Sources, first: Method, folder: RunFolder, console: Console
) -> bool:
    """Train the stages one after the other, each from the network the one before it left.

    Args:
        parts: the stages.
        sources: the images.
        first: the method of the first stage.
        folder: the run.
        console: where progress is printed.

    Returns:
        Whether the run is over in this process and this is the first of several.

    Raises:
        TrainingError: a signal stopped the run; what was learnt is saved.
    """
    images, network, is_first = sources, None, first_process()
    for number, part in enumerate(parts, start=1):
        if part.settings.pseudo_labels is not None and network is not None:
            images = _label(part, network, sources, folder, console)
        start = network if part.settings.start == "previous" else None
        network = part.folder.model
        if part.done:
            continue
        method, notes = (first, []) if number == 1 else _build(part, images, start)
        if len(parts) > 1 and first_process():
            text = describe_streams(part.config, images, method.streams)
            lines = [f"stage {number} of {len(parts)}, {part.name}: {part.config.method_name}"]
            for line in (*lines, *notes, text):
                console.print(line, highlight=False, markup=False)
        started = time.perf_counter()
        fitted = fit(part.config, images, method, part.folder, console, resume=part.resume)
        is_first = fitted.first
        if is_first:
            seconds = time.perf_counter() - started
            _note(part, parts, folder, fitted.steps, fitted.stopped, seconds)
        if fitted.stopped and is_first:
            stage = f" of stage {part.name!r}" if part.name else ""
            raise TrainingError(
                f"stopped by {fitted.stopped} after step {fitted.steps}{stage}; "
                "everything is saved",
                where=folder.root,
                fix="continue with the same command and --resume",
            )
        if fitted.stopped:
            return False
        wait_for_all()  # for the network that the first process has written
    return is_first


def check_checkpoint(path: Path) -> None:
    """Make sure that a checkpoint can be read, without running anything it may contain.

    Raises:
        CheckpointError: it cannot.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            "the checkpoint cannot be read: it is damaged or of another program",
            where=path,
            fix=f"use {path.with_name('best.ckpt')} in its place, or start again with --force",
        ) from error


def _build(part: Part, images: Sources, start: Path | None) -> tuple[Method, list[str]]:
    # Stages that begin with the run's first weights draw them alike.
    torch.manual_seed(seed_for(part.config.seed, "weights"))
    follow = part.resume or part.done
    return build_method(part.config, images, weights_follow=follow, start=start)


def _label(
    part: Part, network: Path, sources: Sources, folder: RunFolder, console: Console
) -> Sources:
    """Give the unlabelled images masks made by the network of the stage before."""
    assert part.settings.pseudo_labels is not None  # the caller asked
    masks = folder.pseudo_labels(part.name)
    made = make_pseudo_labels(
        network,
        masks,
        settings=part.settings.pseudo_labels,
        config=part.config,
        sources=sources,
        device=device_of(part.config.train),
    )
    if first_process():
        console.print(
            f"pseudo-labels for {made['images']} images in {masks}: "
            f"{100 * made['labelled_share']:.1f} % of their pixels are certain enough",
            highlight=False,
            markup=False,
        )
        if made["labelled_share"] < 0.01:
            text = (
                "note: hardly any pixel has a pseudo-label: pseudo_labels.threshold may be too high"
            )
            console.print(text, style="yellow", highlight=False)
    return with_pseudo_labels(sources, masks)


def _note(
    part: Part,
    parts: list[Part],
    folder: RunFolder,
    steps: int,
    stopped: str | None,
    seconds: float,
) -> None:
    """Write down how a stage ended, in its own folder and in that of the run."""
    status = "stopped" if stopped else "finished"
    record = part.folder.read_record()
    if part.folder is not folder:
        own = round(record.get("seconds", 0.0) + seconds, 1)
        part.folder.update_record(
            stage=part.name, method=part.config.method_name, status=status, steps=steps, seconds=own
        )
    whole = folder.read_record()
    total = round(whole.get("seconds", 0.0) + seconds, 1)
    folder.update_record(seconds=total, finished=now(), steps=steps)
    if part is parts[-1] or stopped:
        folder.update_record(status=status)

"""One training run, of one stage or several, from configuration to report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from pixelcontrast.core.errors import TrainingError
from pixelcontrast.engine.config import RunConfig, dump_config
from pixelcontrast.engine.contact_sheets import describe_clusters
from pixelcontrast.engine.devices import device_of, precision, use_gpu
from pixelcontrast.engine.environment import git_state, hardware, versions
from pixelcontrast.engine.folder import RunFolder, first_process, now
from pixelcontrast.engine.names import FILE
from pixelcontrast.engine.parts import refuse_impossible, run_parts, run_stages
from pixelcontrast.engine.prepare import assemble, command_for, prepare, refuse_unknown, stored_tree
from pixelcontrast.engine.scoring import score_run
from pixelcontrast.engine.sources import Sources
from pixelcontrast.engine.streams import describe_streams, stream_samples
from pixelcontrast.methods import method_class
from pixelcontrast.recipes import run_name
from pixelcontrast.report import write_report

if TYPE_CHECKING:
    from pixelcontrast.methods.base import Method


def train(
    recipe: str | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
    **sections: Mapping[str, Any],
) -> RunFolder:
    """Train by a recipe and leave everything about the run in a folder.

    Args:
        recipe: a recipe's name, a path to a YAML file, or the configuration itself.
        overrides: assignments such as `optim.lr=0.02`.
        out: folder of the run; `runs/<name>` by default.
        resume: continue the run in that folder from its last checkpoint.
        force: replace a run that lies in that folder.
        console: where progress is printed.
        sections: values by section, for example `data={"root": "camvid"}`.

    Returns:
        The folder of the run.

    Raises:
        ConfigError: an unknown name or an unfit value.
        DataError: the data cannot be used; nothing was trained.
        CheckpointError: there is nothing to resume.
        TrainingError: a loss was not finite, or the run was stopped; what was learnt is saved.
    """
    console = console or Console(soft_wrap=True)
    tree = assemble(recipe, overrides, sections)
    folder = RunFolder(out or Path("runs") / run_name(tree))
    if resume:
        tree = stored_tree(folder, tree, overrides, sections)
    elif not force and first_process():
        refuse_unknown(tree)  # whoever replaces the folder shall not meet this afterwards
        folder.refuse_existing()
    config, sources, notes = prepare(tree)
    parts = run_parts(config, folder, resume=resume)
    # All that can be refused is refused before the folder is claimed.
    method, about_weights = refuse_impossible(parts, sources)
    notes += about_weights
    if first_process():
        if not resume:
            folder.create(force=force)
            folder.write_config(dump_config(config))
            folder.update_record(command=command_for(recipe, overrides, sections, folder))
        folder.update_record(**_record(config, sources, method, notes))
        _announce(console, config, sources, method, notes, folder)
    with _failure_in_record(folder):
        finished = run_stages(parts, sources, method, folder, console)
    if finished:
        _conclude(parts[-1].config, sources, folder, console)
    return folder


def _conclude(config: RunConfig, sources: Sources, folder: RunFolder, console: Console) -> None:
    """Score the best network of the finished run and write its report."""
    cls = method_class(config.method_name)
    if cls.finds_clusters:
        images = stream_samples(sources, cls.streams, cls.streams[0])
        describe_clusters(folder, config, images, device_of(config.train))
        console.print(f"clusters: {folder.root / 'clusters'}; name them in {folder.root / FILE}")
    if sources.val and cls.classifies:
        best = folder.read_record()["best"]
        weights = "trained" if best["which"] == "student" else "averaged"
        console.print(
            f"scoring the best network, the {weights} weights of step {best['step']}, "
            f"on {len(sources.val)} images",
            highlight=False,
        )
        outcome = score_run(folder, data=sources.dataset.root)
        console.print(outcome.table(sources.dataset.info.classes), highlight=False)
    console.print(f"report: {write_report([folder.root], folder.report)}")


def _record(
    config: RunConfig, sources: Sources, method: Method, notes: list[str]
) -> dict[str, Any]:
    network = method.segmentor
    return {
        "name": config.name,
        "method": config.method_name,
        "seed": config.seed,
        "started": now(),
        "status": "running",
        "device": "gpu" if use_gpu(config.train) else "cpu",
        "precision": precision(config.train),
        "hardware": hardware(),
        "versions": versions(),
        "git": git_state(),
        "dataset": sources.describe(),
        "model": {
            "encoder": config.model.encoder,
            "decoder": config.model.decoder,
            "parameters": sum(p.numel() for p in network.parameters()),
            "parameters_inference": sum(p.numel() for p in network.inference_copy().parameters()),
        },
        "notes": notes,
    }


def _announce(
    console: Console,
    config: RunConfig,
    sources: Sources,
    method: Method,
    notes: list[str],
    folder: RunFolder,
) -> None:
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    if sources.unlabeled and not config.stages and all(s.labelled for s in method.streams):
        console.print(
            f"note: {len(sources.unlabeled)} unlabelled images are not used by "
            f"{config.method_name}; unimatch, u2pl, prcl and rankmatch learn from them too",
            style="yellow",
            highlight=False,
        )
    parameters = sum(p.numel() for p in method.segmentor.parameters())
    stages = "" if config.stages else describe_streams(config, sources, method.streams) + "\n"
    console.print(
        f"{config.method_name}: {config.model.encoder} + {config.model.decoder}, "
        f"{parameters / 1e6:.1f} M parameters\n"
        f"data: {sources.dataset.root.absolute()}: {len(sources.labeled)} labelled, "
        f"{len(sources.unlabeled)} unlabelled, {len(sources.val)} validation images, "
        f"{sources.dataset.info.num_classes} classes\n"
        f"{stages}run: {folder.root.absolute()}",
        highlight=False,
        markup=False,
    )


@contextmanager
def _failure_in_record(folder: RunFolder) -> Iterator[None]:
    """Note in the record that a run failed, whatever the reason; explain a full GPU."""
    try:
        yield
    except BaseException as error:
        # A run that a signal stopped has said so already.
        if first_process() and folder.read_record().get("status") != "stopped":
            folder.update_record(status="failed", finished=now())
        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingError(
                f"the GPU has too little memory: {str(error).splitlines()[0]}",
                where=folder.root,
                fix="lower train.batch (and raise train.accumulate), view.crop, or use "
                "train.precision=bf16",
            ) from error
        raise

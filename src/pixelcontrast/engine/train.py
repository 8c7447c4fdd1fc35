"""One training run from configuration to report."""

from __future__ import annotations

import pickle
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from rich.console import Console

from pixelcontrast.core.distributed import keep_out_of_ddp, rank, world_size
from pixelcontrast.core.errors import CheckpointError, TrainingError
from pixelcontrast.core.seeding import seed_for
from pixelcontrast.data import build_eval_loader
from pixelcontrast.engine.callbacks import Journal, ProgressBar, StopSignals, Validation
from pixelcontrast.engine.config import RunConfig, dump_config
from pixelcontrast.engine.devices import precision, quiet_lightning, trainer_options, use_gpu
from pixelcontrast.engine.environment import git_state, hardware, versions
from pixelcontrast.engine.folder import RunFolder, first_process, now
from pixelcontrast.engine.prepare import assemble, build_method, prepare, stored_tree
from pixelcontrast.engine.scoring import score_run
from pixelcontrast.engine.sources import Sources
from pixelcontrast.engine.streams import StreamData, describe_streams
from pixelcontrast.evaluation import SegScores, evaluate
from pixelcontrast.models import Segmentor, save_model
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
        check_checkpoint(folder.last)
    config, sources, notes = prepare(tree)
    # All that can be refused is refused before the folder is claimed.
    options = trainer_options(config.train, config.optim, folder.root)
    torch.manual_seed(seed_for(config.seed, "weights"))
    method = build_method(config, sources, weights_follow=resume)
    if first_process():
        if not resume:
            folder.create(force=force)
            folder.write_config(dump_config(config))
        folder.update_record(**_record(config, sources, method, notes))
        _announce(console, config, sources, method, notes, folder)
    _fit(config, sources, method, folder, console, options, resume=resume)
    return folder


def _fit(
    config: RunConfig,
    sources: Sources,
    method: Method,
    folder: RunFolder,
    console: Console,
    options: dict[str, Any],
    *,
    resume: bool,
) -> None:
    journal = Journal(folder, config.train.log_every, config.train.batch * config.train.accumulate)
    signals = StopSignals()
    validation = Validation(
        folder,
        journal,
        lambda running: score_predictors(running, config, sources),
        lambda running, which: save_predictor(running, which, config, sources, folder.model),
        validate_every=config.train.validate_every,
        checkpoint_every=config.train.checkpoint_every,
    )
    quiet_lightning()
    trainer = Trainer(
        # In this order a stop is noticed, then the step is logged, then everything is saved.
        callbacks=[signals, journal, validation, ProgressBar(journal, console, config.train.steps)],
        max_steps=config.train.steps,
        **options,
    )
    keep_out_of_ddp(method)
    if config.train.channels_last:
        method.to(memory_format=torch.channels_last)  # a teacher like its student
    if config.train.compile:
        method.segmentor.compile()
    before = folder.read_record().get("seconds", 0.0)
    started = time.perf_counter()
    with _failure_in_record(folder):
        trainer.fit(
            method,
            datamodule=StreamData(config, sources, method.streams),
            ckpt_path=str(folder.last) if resume else None,
            weights_only=True,
        )
    if not trainer.is_global_zero:
        return
    folder.update_record(
        seconds=round(before + time.perf_counter() - started, 1),
        finished=now(),
        steps=trainer.global_step,
        status="stopped" if signals.received else "finished",
    )
    if signals.received:
        raise TrainingError(
            f"stopped by {signals.received} after step {trainer.global_step}; everything is saved",
            where=folder.root,
            fix="continue with the same command and --resume",
        )
    if sources.val:
        best = folder.read_record()["best"]
        weights = "trained" if best["which"] == "student" else "averaged"
        console.print(
            f"scoring the best network, the {weights} weights of step {best['step']}, "
            f"on {len(sources.val)} images",
            highlight=False,
        )
        outcome = score_run(folder, data=sources.dataset.root)
        console.print(outcome.scores.table(sources.dataset.info.classes), highlight=False)
    console.print(f"report: {write_report([folder.root], folder.report)}")


def score_predictors(method: Method, config: RunConfig, sources: Sources) -> dict[str, SegScores]:
    """Scores of every network of the method on the validation images; empty without any."""
    if not sources.val:
        return {}
    info = sources.dataset.info
    scores = {}
    for name, network in method.predictors().items():
        was_training = network.training
        network.eval()
        scores[name] = evaluate(
            network,
            build_eval_loader(
                sources.val,
                info,
                batch_size=config.eval.batch,
                rank=rank(),
                world_size=world_size(),
                workers=config.data.workers,
            ),
            num_classes=info.num_classes,
            ignore_index=info.ignore_index,
            config=replace(config.eval.inference, align_corners=config.model.align_corners),
            device=method.device,
        ).scores
        network.train(was_training)
    return scores


def save_predictor(
    method: Method, which: str | None, config: RunConfig, sources: Sources, path: Path
) -> None:
    """Write one network of the method, or its preferred one, with all that is needed to use it."""
    network = method.predictors()[which] if which else method.predictor()
    assert isinstance(network, Segmentor)  # every method so far trains one
    description = sources.describe()
    kept = {key: description[key] for key in ("classes", "palette", "ignore_index", "splits")}
    protocol = replace(config.eval.inference, align_corners=config.model.align_corners)
    kept |= {"run": config.name, "method": config.method_name, "inference": asdict(protocol)}
    save_model(network, path, kept)


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


def _record(
    config: RunConfig, sources: Sources, method: Method, notes: list[str]
) -> dict[str, Any]:
    network = method.segmentor
    return {
        "name": config.name,
        "method": config.method_name,
        "seed": config.seed,
        "command": shlex.join(["pixelcontrast", *sys.argv[1:]]),
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
    parameters = sum(p.numel() for p in method.segmentor.parameters())
    console.print(
        f"{config.method_name}: {config.model.encoder} + {config.model.decoder}, "
        f"{parameters / 1e6:.1f} M parameters\n"
        f"data: {sources.dataset.root.absolute()}: {len(sources.labeled)} labelled, "
        f"{len(sources.unlabeled)} unlabelled, {len(sources.val)} validation images, "
        f"{sources.dataset.info.num_classes} classes\n"
        f"{describe_streams(config, sources, method.streams)}\n"
        f"run: {folder.root.absolute()}",
        highlight=False,
        markup=False,
    )


@contextmanager
def _failure_in_record(folder: RunFolder) -> Iterator[None]:
    """Note in the record that a run failed, whatever the reason; explain a full GPU."""
    try:
        yield
    except BaseException as error:
        if first_process():
            folder.update_record(status="failed", finished=now())
        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingError(
                f"the GPU has too little memory: {str(error).splitlines()[0]}",
                where=folder.root,
                fix="lower train.batch (and raise train.accumulate), view.crop, or use "
                "train.precision=bf16",
            ) from error
        raise

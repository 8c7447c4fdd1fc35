"""One stage of a run: a method trained on images until its last step."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer

from pixelcontrast.core.distributed import keep_out_of_ddp, rank, world_size
from pixelcontrast.data import build_eval_loader, default_palette
from pixelcontrast.engine.alternation import Alternation
from pixelcontrast.engine.callbacks import Journal, ProgressBar, StopSignals, Validation
from pixelcontrast.engine.clusters import score_clusters
from pixelcontrast.engine.devices import quiet_lightning, trainer_options
from pixelcontrast.engine.streams import StreamData
from pixelcontrast.evaluation import SegScores, evaluate
from pixelcontrast.evaluation.matching import MatchedScores
from pixelcontrast.models import Segmentor, save_model

if TYPE_CHECKING:
    from rich.console import Console

    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.folder import RunFolder
    from pixelcontrast.engine.sources import Sources
    from pixelcontrast.methods.base import Method


class Fitted(NamedTuple):
    """How training ended."""

    steps: int
    """Optimiser steps done since the beginning of the stage."""
    stopped: str | None
    """The signal that stopped it before its last step, if one did."""
    first: bool
    """Whether this is the first of several processes."""


def fit(
    config: RunConfig,
    sources: Sources,
    method: Method,
    folder: RunFolder,
    console: Console,
    *,
    resume: bool,
) -> Fitted:
    """Train a method and keep checkpoints, logs and its best network in `folder`.

    Args:
        config: the settings of the stage.
        sources: its images.
        method: what is trained.
        folder: where checkpoints, logs and the network go.
        console: where progress is printed.
        resume: go on from the last checkpoint in `folder`.

    Raises:
        ConfigError: a device that this machine does not have.
        TrainingError: a loss was not finite.
    """
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
    data = StreamData(config, sources, method.streams)
    # In this order a stop is noticed, then the step is logged, then everything is saved.
    callbacks: list[Callback] = [signals, journal, validation]
    callbacks.append(ProgressBar(journal, console, config.train.steps))
    if method.finds_clusters:
        callbacks.insert(2, Alternation(folder, data, journal, console))
    trainer = Trainer(
        callbacks=callbacks,
        max_steps=config.train.steps,
        **trainer_options(config.train, config.optim, folder.root),
    )
    keep_out_of_ddp(method)
    if config.train.channels_last:
        method.to(memory_format=torch.channels_last)  # a teacher like its student
    if config.train.compile:
        method.segmentor.compile()
    trainer.fit(
        method,
        datamodule=data,
        ckpt_path=str(folder.last) if resume else None,
        weights_only=True,
    )
    return Fitted(trainer.global_step, signals.received, trainer.is_global_zero)


def score_predictors(
    method: Method, config: RunConfig, sources: Sources
) -> dict[str, SegScores | MatchedScores]:
    """Scores of every network of the method on the validation images; empty without any."""
    if not (sources.val and method.classifies):
        return {}
    info = sources.dataset.info
    if method.finds_clusters:
        return {"student": score_clusters(method, config, sources)}
    scores: dict[str, SegScores | MatchedScores] = {}
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
    kept: dict[str, Any] = {
        key: description[key] for key in ("classes", "palette", "ignore_index", "splits")
    }
    if method.finds_clusters:
        names = method.output_names(method.config, sources.dataset.info.classes)
        kept |= {"classes": names, "palette": default_palette(len(names)), "clusters": True}
    protocol = replace(config.eval.inference, align_corners=config.model.align_corners)
    kept |= {"run": config.name, "method": config.method_name, "inference": asdict(protocol)}
    save_model(network, path, kept | {"classifies": method.classifies})

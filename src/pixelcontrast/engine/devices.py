"""From settings to Lightning's trainer: devices, precision, what it must not do."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixelcontrast.core.errors import ConfigError

if TYPE_CHECKING:
    from pixelcontrast.engine.config import TrainConfig
    from pixelcontrast.methods.optim import OptimConfig

_PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def trainer_options(train: TrainConfig, optim: OptimConfig, root: Path) -> dict[str, Any]:
    """Arguments of `lightning.pytorch.Trainer` for any number of devices.

    Raises:
        ConfigError: a device that this machine does not have.
    """
    on_gpu = use_gpu(train)
    devices = train.devices
    if devices == "auto":
        devices = torch.cuda.device_count() if on_gpu else 1
    if on_gpu and devices > torch.cuda.device_count():
        raise ConfigError(
            f"{devices} GPUs asked for, {torch.cuda.device_count()} found", where="train.devices"
        )
    processes = devices * train.nodes
    several = processes > 1
    for name in ("batch", "batch_unlabeled"):
        size = getattr(train, name)
        if size is not None and size % processes:
            raise ConfigError(
                f"a batch of {size} cannot be shared by {processes} processes",
                where=f"train.{name}",
                fix=f"use a multiple of {processes}",
            )
    return {
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": devices,
        "num_nodes": train.nodes,
        "strategy": "ddp" if several else "auto",
        "sync_batchnorm": several and on_gpu,
        "precision": _PRECISIONS[precision(train)],
        "accumulate_grad_batches": train.accumulate,
        "gradient_clip_val": optim.clip_norm,
        "deterministic": train.deterministic,
        "default_root_dir": str(root),
        # The sampler shares images out, the callbacks score, log and save: none of it twice.
        "use_distributed_sampler": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def use_gpu(train: TrainConfig) -> bool:
    """Whether the run goes to a GPU.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if train.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "a GPU is asked for and torch finds none",
            where="train.device",
            fix="use train.device=cpu, or look at 'pixelcontrast doctor'",
        )
    return train.device != "cpu" and torch.cuda.is_available()


def device_of(train: TrainConfig) -> torch.device:
    """Where this process computes what it computes outside of the trainer."""
    if not use_gpu(train):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def precision(train: TrainConfig) -> str:
    """The precision a run uses: as set, or bf16 on GPUs that have it and fp32 elsewhere."""
    if train.precision != "auto":
        return train.precision
    return "bf16" if use_gpu(train) and torch.cuda.is_bf16_supported() else "fp32"


def quiet_lightning() -> None:
    """Silence advice that does not apply here; real warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*dataloader is not resumable.*",  # the sampler starts at the right step by itself
        ".*does not have many workers.*",
        ".*`training_step` returned.*",
        ".*lr_scheduler.step.*",
        ".*module.s. in eval mode at the start of training.*",  # averaged and frozen networks
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=text)

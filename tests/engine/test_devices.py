from pathlib import Path

import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.config import TrainConfig
from pixelcontrast.engine.devices import precision, trainer_options
from pixelcontrast.methods.optim import OptimConfig


def options(**train):
    return trainer_options(TrainConfig(device="cpu", **train), OptimConfig(), Path())


def test_one_process_by_default_and_several_on_request():
    assert options()["strategy"] == "auto"
    several = options(devices=2, batch=8)
    assert (several["strategy"], several["devices"]) == ("ddp", 2)
    assert several["sync_batchnorm"] is False  # synchronised batch norm exists on GPUs only


def test_a_batch_must_be_shared_evenly():
    with pytest.raises(ConfigError, match="multiple of 3"):
        options(devices=3, batch=8)
    with pytest.raises(ConfigError, match=r"train\.batch_unlabeled"):
        options(devices=2, batch=8, batch_unlabeled=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a missing GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(ConfigError, match=r"train\.device=cpu"):
        trainer_options(TrainConfig(device="gpu"), OptimConfig(), Path())


def test_precision_is_full_on_cpu_unless_set():
    assert precision(TrainConfig(device="cpu")) == "fp32"
    assert precision(TrainConfig(device="cpu", precision="bf16")) == "bf16"
    assert options(precision="bf16")["precision"] == "bf16-mixed"


def test_nothing_is_done_twice():
    assert options()["use_distributed_sampler"] is False
    assert options()["limit_val_batches"] == 0

"""Shared fixtures: one process, one thread, and a small drawn data set."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of generated streets: 12 training, 4 validation and 2 test images of 48 x 64."""
    from pixelcontrast.data import make_scenes

    root = tmp_path_factory.mktemp("data") / "scenes"
    return make_scenes(root, train=12, val=4, test=2, labeled=8, size=(48, 64))


TINY = {
    "seed": 0,
    "data": {"workers": 0},
    "view": {"crop": [48, 64], "scale": [0.8, 1.25]},
    "strong": {"brightness": 0.5, "contrast": 0.5},
    "model": {
        "encoder": "test_resnet",
        "decoder": "deeplabv3plus",
        "output_stride": 16,
        "decoder_channels": 16,
        "pretrained": False,
    },
    "optim": {"name": "adamw", "lr": 0.003, "weight_decay": 0.0},
    "train": {
        "steps": 6,
        "batch": 4,
        "device": "cpu",
        "validate_every": 3,
        "checkpoint_every": 3,
        "log_every": 1,
        "ema": 0.9,
    },
}
"""A run of a second or two."""


@pytest.fixture
def tiny(scenes):
    """The configuration of a small run on the drawn data; tests add the method."""
    import copy

    tree = copy.deepcopy(TINY)
    tree["data"]["root"] = str(scenes)
    return tree

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.config import parse_config
from pixelcontrast.losses import within_image_loss
from pixelcontrast.methods.label_pretrain import LabelPretrain, compared_size
from tests.methods.tester import MethodTester

HEAD = {"embedding": {"dim": 8, "layers": 3, "hidden": 16}}


class TestCrossImage(MethodTester):
    name = "label_pretrain"
    options = HEAD

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import EmbeddingConfig, ModelConfig


def test_parses_from_plain_values():
    config = TypeAdapter(ModelConfig).validate_python(
        {"encoder": "resnet18", "output_stride": 8, "weights_file": "w.pth"}
    )
    assert config == ModelConfig("resnet18", output_stride=8, weights_file=Path("w.pth"))


def test_refuses_an_impossible_stride():
    with pytest.raises(ValidationError):
        TypeAdapter(ModelConfig).validate_python({"output_stride": 12})


@pytest.mark.parametrize("values", [{"dropout": 1.0}, {"dropout": -0.1}, {"decoder_channels": 0}])
def test_refuses_impossible_networks(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        ModelConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"dim": 0},
        {"layers": 0},
        {"layers": 4},
        {"hidden": 0},
        {"dropout": 1.0},
        {"variance_lr": 0.0},
    ],
)
def test_refuses_impossible_heads(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        EmbeddingConfig(**values)

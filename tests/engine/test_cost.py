import torch

from pixelcontrast.engine.config import TrainConfig
from pixelcontrast.engine.cost import step_cost
from pixelcontrast.models import ModelConfig, build_segmentor


def test_a_step_is_timed_and_its_memory_counted():
    model = ModelConfig(encoder="test_resnet", decoder="fpn", decoder_channels=8)
    train = TrainConfig(batch=2, device="cpu")
    cost = step_cost(model, train, crop=(64, 96), num_classes=3, rounds=1)
    with torch.device("meta"):
        network = build_segmentor(
            ModelConfig(encoder="test_resnet", decoder="fpn", decoder_channels=8, pretrained=False),
            3,
        )
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.forward_seconds > 0
    assert cost.backward_seconds > 0
    assert cost.peak_bytes is None or cost.peak_bytes >= 0

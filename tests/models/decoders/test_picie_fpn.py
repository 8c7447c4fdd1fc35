import torch

from pixelcontrast.models import ModelConfig, build_segmentor
from pixelcontrast.models.decoders import DECODERS


def test_the_top_down_sum_and_nothing_else():
    decoder = DECODERS["picie_fpn"]([3, 4, 5], [4, 8, 16], width=6)
    stages = torch.randn(1, 3, 9, 14), torch.randn(1, 4, 5, 7), torch.randn(1, 5, 3, 4)

    def up(x, like):
        return torch.nn.functional.interpolate(x, like.shape[-2:], mode="bilinear")

    p2 = decoder.laterals[1](stages[1]) + up(decoder.laterals[2](stages[2]), stages[1])
    p1 = decoder.laterals[0](stages[0]) + up(p2, stages[0])
    torch.testing.assert_close(decoder(stages).features, p1)


def test_size_of_the_papers_network():
    config = ModelConfig(encoder="resnet18", decoder="picie_fpn", pretrained=False)
    network = build_segmentor(config, 27)
    assert sum(p.numel() for p in network.decoder.parameters()) == 123_392
    assert sum(p.numel() for p in network.encoder.parameters()) == 11_299_904 - 123_392
    network.eval()
    assert network(torch.zeros(1, 3, 64, 96)).features.shape == (1, 128, 16, 24)

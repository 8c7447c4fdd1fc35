import torch
from tests.models.tester import build

from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.models.decoders import HRNetHead


def test_w48_has_the_published_size_and_picos_head():
    with torch.device("meta"):
        model = build("hrnet_w48", "hrnet", classes=19, embedding=EmbeddingConfig())
    head = sum(p.numel() for p in model.embedding_head.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert head == 705_136
    assert abs((total - head) / 65.9e6 - 1) < 0.01  # as 1904.04514 reports


def test_fusion_holds_every_stage_at_the_finest_size():
    decoder = HRNetHead([2, 3, 4], [4, 8, 16]).eval()
    stages = torch.randn(1, 2, 9, 13), torch.randn(1, 3, 5, 7), torch.randn(1, 4, 3, 4)
    decoded = decoder(stages)
    expected = [torch.nn.functional.interpolate(x, (9, 13), mode="bilinear") for x in stages]
    torch.testing.assert_close(decoded.taps["fusion"], torch.cat(expected, 1))
    assert decoder.channels == 9
    assert torch.equal(decoded.features, decoder.mix(decoded.taps["fusion"]))

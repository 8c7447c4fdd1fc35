import torch

from pixelcontrast.models.decoders import DeepLabV3Plus


def test_layout_of_the_paper():
    decoder = DeepLabV3Plus([256, 512, 1024, 2048], [4, 8, 16, 16])
    assert decoder.low[0].out_channels == 48
    assert [block[0].kernel_size for block in decoder.refine] == [(3, 3), (3, 3)]
    assert [block[0].groups for block in decoder.refine] == [1, 1]
    assert decoder.tap_channels == {"aspp": 256, "fusion": 304}


def test_fusion_is_the_enlarged_aspp_beside_the_reduced_stage():
    decoder = DeepLabV3Plus([4, 6], [4, 16], width=8).eval()
    stages = torch.randn(1, 4, 9, 13), torch.randn(1, 6, 3, 4)
    decoded = decoder(stages)
    enlarged = torch.nn.functional.interpolate(decoded.taps["aspp"], (9, 13), mode="bilinear")
    assert torch.equal(decoded.taps["fusion"][:, :8], enlarged)
    assert torch.equal(decoded.taps["fusion"][:, 8:], decoder.low(stages[0]))
    assert torch.equal(decoded.features, decoder.refine(decoded.taps["fusion"]))

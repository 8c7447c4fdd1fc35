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


def test_the_separable_form_computes_the_same_maps_with_fewer_parameters():
    from pixelcontrast.models.decoders import DECODERS

    plain, fine = (
        DECODERS[name]((8, 16, 24, 32), (4, 8, 16, 16), width=16)
        for name in ("deeplabv3plus", "deeplabv3plus_separable")
    )
    stages = [torch.randn(2, c, s, s) for c, s in zip((8, 16, 24, 32), (9, 5, 3, 3), strict=True)]
    left, right = plain(stages), fine(stages)
    assert left.features.shape == right.features.shape
    assert left.taps.keys() == right.taps.keys()
    weights = [m for m in fine.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] > 1]
    assert len(weights) == 5
    assert all(m.groups == m.in_channels for m in weights)
    assert [m.dilation[0] for m in weights] == [6, 12, 18, 1, 1]

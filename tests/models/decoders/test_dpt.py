import pytest
import torch
from tests.models.same_weights import randomise

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.decoders import DPT
from pixelcontrast.models.decoders.dpt import _normalised


def test_features_have_eight_times_the_token_grid_and_published_widths():
    stages = [torch.randn(1, 32, 5, 7) for _ in range(4)]
    decoder = DPT([32] * 4, [14] * 4, width=6)
    assert decoder(stages).features.shape == (1, 6, 40, 56)
    assert [p.out_channels for p in decoder.projections] == [4, 8, 16, 32]
    with torch.device("meta"):
        sizes = {w: DPT([w] * 4, [14] * 4) for w in (384, 768, 1024)}
    assert {w: d.channels for w, d in sizes.items()} == {384: 64, 768: 128, 1024: 256}
    assert [p.out_channels for p in sizes[384].projections] == [48, 96, 192, 384]
    assert [p.out_channels for p in sizes[768].projections] == [96, 192, 384, 768]
    assert [p.out_channels for p in sizes[1024].projections] == [256, 512, 1024, 1024]


def test_size_of_the_published_head():
    # 97.5 M parameters of the network, 86.6 M of the encoder, the classifier has few, and the
    # released head holds one more residual unit, for a skip that the deepest level does not have.
    with torch.device("meta"):
        head = DPT([768] * 4, [14] * 4)
    unit = sum(p.numel() for p in head.skips[0].parameters())
    found = sum(p.numel() for p in head.parameters()) + unit
    assert found / 1e6 == pytest.approx(97.5 - 86.6, abs=0.1)


def test_every_stage_counts():
    decoder = DPT([16] * 4, [16] * 4, width=8).eval()
    stages = [torch.randn(1, 16, 3, 4) for _ in range(4)]
    before = decoder(stages).features
    for place in range(4):
        changed = [s.flip(1) if i == place else s for i, s in enumerate(stages)]
        assert not torch.allclose(decoder(changed).features, before)


def test_scale_and_offset_of_a_token_do_not_matter():
    decoder = DPT([16] * 4, [16] * 4, width=8).eval()
    stages = [torch.randn(1, 16, 3, 4) for _ in range(4)]
    torch.testing.assert_close(
        decoder([7 * s + 3 for s in stages]).features,
        decoder(stages).features,
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_pyramid_is_refused():
    with pytest.raises(ConfigError, match="plain vision transformer"):
        DPT([8, 16, 32, 64], [4, 8, 16, 32])


def test_equals_transformers_depth_anything_with_the_same_weights():
    transformers = pytest.importorskip("transformers", minversion="5.23")
    from transformers.models.depth_anything import modeling_depth_anything as theirs

    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, out_indices=[1, 2, 3, 4]
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[4, 8, 16, 32],
        fusion_hidden_size=16,
    )
    neck = randomise(theirs.DepthAnythingNeck(config))
    ours = DPT([32] * 4, [14] * 4, width=16, align_corners=True).eval()
    for place, layer in enumerate(neck.reassemble_stage.layers):
        ours.projections[place].load_state_dict(layer.projection.state_dict())
        ours.scalings[place].load_state_dict(layer.resize.state_dict())
        ours.laterals[place].load_state_dict(neck.convs[place].state_dict())
        fusion = neck.fusion_stage.layers[len(neck.convs) - 1 - place]
        ours.mixers[place].load_state_dict(fusion.projection.state_dict())
        units = [(ours.fusions, fusion.residual_layer2)]
        units += [(ours.skips, fusion.residual_layer1)] if place < 3 else []
        for kept, unit in units:
            kept[place].first.load_state_dict(unit.convolution1.state_dict())
            kept[place].second.load_state_dict(unit.convolution2.state_dict())
    stages = [torch.randn(2, 32, 3, 5) for _ in range(4)]
    found = []
    ours.mixers[0].register_forward_hook(lambda module, inputs, output: found.append(output))
    with torch.no_grad():
        ours(stages)
        tokens = [_normalised(stage).flatten(2).transpose(1, 2) for stage in stages]
        tokens = [torch.cat([x.new_zeros(2, 1, 32), x], dim=1) for x in tokens]
        expected = neck(tokens, 3, 5)[-1]
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)

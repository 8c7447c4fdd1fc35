import warnings

import pytest
import timm
import torch

from pixelcontrast.core.errors import CheckpointError, ConfigError
from pixelcontrast.models import Encoder


def dilations(stage):
    return [block.conv2.dilation[0] for block in stage]


def test_dilation_keeps_the_previous_rate_in_the_first_block():
    from torchvision.models import resnet50

    ours = Encoder("resnet50", output_stride=8).net
    with torch.device("meta"):
        theirs = resnet50(replace_stride_with_dilation=[False, True, True])
    assert dilations(ours.layer3) == dilations(theirs.layer3) == [1, 2, 2, 2, 2, 2]
    assert dilations(ours.layer4) == dilations(theirs.layer4) == [2, 4, 4]


def test_stages_equal_timm_where_timm_needs_no_help():
    encoder = Encoder("resnet18").eval()
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for ours, theirs in zip(encoder(image), encoder.net(image)[1:], strict=True):
            assert torch.equal(ours, theirs)


def test_padding_leaves_divisible_images_alone():
    encoder = Encoder("convnext_atto").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(encoder(image), encoder.net(image), strict=True):
            assert torch.equal(ours, theirs)


def test_channels_last_backbones_are_turned():
    encoder = Encoder("swin_tiny_patch4_window7_224").eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(encoder(image), encoder.net(image), strict=True):
            assert torch.equal(ours, theirs.permute(0, 3, 1, 2))
        odd = encoder(torch.randn(1, 3, 65, 33))
    assert [tuple(stage.shape[-2:]) for stage in odd] == [(17, 9), (9, 5), (5, 3), (3, 2)]


def test_transformer_blocks_are_spread_over_the_depth():
    assert Encoder("vit_tiny_patch16_224").net.feature_info.out_indices == (2, 5, 8, 11)


def test_hrnet_has_the_widths_of_the_segmentation_network():
    assert Encoder("hrnet_w18_small").channels == (16, 32, 64, 128)


def test_colours_and_licence_come_from_timm():
    encoder = Encoder("vit_tiny_patch16_224")
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert encoder.license == "apache-2.0"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnt18", "resnet18"), ("resnet18.tv_in1", "resnet18.tv_in1k")],
)
def test_unknown_names_get_a_suggestion(name, hint):
    with pytest.raises(ConfigError, match="did you mean") as caught:
        Encoder(name)
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "vit_tiny_patch16_224"])
def test_refuses_to_dilate_what_cannot_be_dilated(name):
    with pytest.raises(ConfigError, match="cannot be dilated"):
        Encoder(name, output_stride=8)


def test_refuses_backbones_of_one_size():
    with pytest.raises(ConfigError, match="cannot serve as an encoder"):
        Encoder("beit_base_patch16_224")


def test_failed_download_names_both_ways_out(monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("name resolution failed")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.raises(CheckpointError, match="name resolution failed") as caught:
        Encoder("resnet18", pretrained=True)
    assert "model.weights_file=" in caught.value.fix
    assert "model.pretrained=false" in caught.value.fix


def test_multi_grid_multiplies_the_dilation_of_the_last_stage():
    """U2PL's ResNet at output stride 8: 3x3 dilations 4, 8, 16 in the last stage."""
    encoder = Encoder("resnet50", output_stride=8, multi_grid=(1, 2, 4)).eval()
    plain = Encoder("resnet50", output_stride=8)
    assert dilations(plain.net.layer4) == [2, 4, 4]
    assert dilations(encoder.net.layer4) == [4, 8, 16]
    assert dilations(encoder.net.layer3) == [1, 2, 2, 2, 2, 2]
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, 65, 65))[-1].shape[-2:] == (9, 9)


@pytest.mark.parametrize(
    ("name", "grid", "reason"),
    [("resnet18", (1, 2), "bottleneck"), ("vit_tiny_patch16_224", (1, 2, 4), "bottleneck"),
     ("resnet50", (1, 2), "3 blocks")],
)  # fmt: skip
def test_refuses_a_multi_grid_that_does_not_fit(name, grid, reason):
    with pytest.raises(ConfigError, match=reason):
        Encoder(name, multi_grid=grid)


def test_depths_follow_the_blocks():
    encoder = Encoder("vit_tiny_patch16_224")
    depths, blocks = encoder.depths()
    by_name = dict(zip((n for n, _ in encoder.net.named_parameters()), depths, strict=True))
    assert blocks == 12
    assert by_name["model.pos_embed"] == by_name["model.patch_embed.proj.weight"] == 0
    assert by_name["model.blocks.0.attn.qkv.weight"] == 1
    assert by_name["model.blocks.11.mlp.fc2.bias"] == 12
    assert depths == sorted(depths)


def test_transformers_stretch_their_position_embedding():
    encoder = Encoder("vit_tiny_patch16_224").eval()
    image = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        before = encoder(image)[-1]
        # A constant embedding is the same at every size.
        encoder.net.model.pos_embed.add_(1.0)
        after = encoder(image)[-1]
        encoder.net.model.pos_embed.zero_()
        without = encoder(image)[-1]
    assert before.shape[-2:] == (6, 4)
    assert not torch.allclose(before, after)
    assert not torch.allclose(before, without)


@pytest.mark.parametrize(
    ("name", "warns"), [("vit_small_patch16_dinov3", True), ("resnet18", False)]
)
def test_licences_that_are_not_free_are_told_before_a_download(name, warns, monkeypatch):
    def offline(*_args, **_kwargs):
        raise OSError("offline")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(CheckpointError):
            Encoder(name, pretrained=True)
    assert any("dinov3-license" in str(w.message) for w in caught) == warns

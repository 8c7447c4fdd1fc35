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

import pytest
import timm

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.backbones import BACKBONES
from pixelcontrast.models.encoder import _memoryless, _plan

CHEAP = (
    "resnet18", "mobilenetv3_small_100", "convnext_tiny", "mit_b0", "pvt_v2_b0",
    "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3", "hrnet_w18_small",
)  # fmt: skip
"""One of each family; the script that writes the table looks at all of them."""


@pytest.mark.parametrize("name", CHEAP)
def test_a_family_is_as_the_table_says(name):
    entry = BACKBONES[name]
    plan = _plan(name, 32)
    net = _memoryless(name, plan.options)
    assert entry.strides == plan.strides
    assert entry.channels == plan.channels
    assert entry.millions == round(sum(p.numel() for p in net.parameters()) / 1e6, 2)
    assert entry.license == timm.get_pretrained_cfg(name).license
    if entry.dilates:
        assert _plan(name, 8).strides == (4, 8, 8, 8)
    elif len(set(entry.strides)) > 1:
        with pytest.raises(ConfigError, match="cannot be dilated"):
            _plan(name, 8)


def test_all_names_are_models_and_have_a_licence():
    for name, entry in BACKBONES.items():
        assert timm.is_model(name), name
        assert entry.license, name
        assert len(entry.channels) == len(entry.strides) == 4


def test_summaries_say_what_differs():
    assert BACKBONES["resnet18"].summary == " 11.18 M; output stride 8-32; 512; apache-2.0"
    assert "output stride 32; 256; NVIDIA" in BACKBONES["mit_b0"].summary
    assert "4 blocks of stride 14; 384" in BACKBONES["vit_small_patch14_dinov2"].summary

import pytest
import torch
from tests.models.same_weights import pyramid, randomise, take_weights

from pixelcontrast.models.decoders import UPerNet

WIDTHS = (8, 16, 24, 32)
CONV = {"0.": "conv.", "1.": "batch_norm."}


def names():
    parts = {
        "pooling.fuse.": "bottleneck.",
        "fuse.": "fpn_bottleneck.",
        **{f"pooling.branches.{k}.": f"psp_modules.{k}.1." for k in range(4)},
        **{f"laterals.{k}.": f"lateral_convs.{k}." for k in range(3)},
        **{f"smooths.{k}.": f"fpn_convs.{k}." for k in range(3)},
    }
    return {f"{a}{c}": f"{b}{d}" for a, b in parts.items() for c, d in CONV.items()}


def head(channels, width, classes=5):
    transformers = pytest.importorskip("transformers", minversion="5.23")
    from transformers.models.upernet.modeling_upernet import UperNetHead

    config = transformers.UperNetConfig(hidden_size=width, num_labels=classes)
    return UperNetHead(config, channels)


@pytest.mark.parametrize("size", [(17, 23), (3, 5)])
def test_equals_transformers_with_the_same_weights(size):
    theirs = randomise(head(WIDTHS, 6))
    classifier = theirs.classifier
    theirs.classifier = torch.nn.Identity()
    ours = UPerNet(WIDTHS, (4, 8, 16, 32), width=6).eval()
    take_weights(ours, theirs, names())
    stages = pyramid(WIDTHS, size)
    with torch.no_grad():
        expected = classifier(theirs(list(stages)))
        found = classifier(ours(stages).features)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_size_of_the_published_head():
    # UPerNet with Swin-T has 60 M parameters (2103.14030, table 3): 27.5 M of the encoder, 31.5 M
    # of the head, 1 M of the auxiliary head.
    with torch.device("meta"):
        ours = UPerNet((96, 192, 384, 768), (4, 8, 16, 32))
        theirs = head((96, 192, 384, 768), 512, classes=150)
    count = sum(p.numel() for p in ours.parameters())
    assert count + 150 * 513 == sum(p.numel() for p in theirs.parameters())
    assert count / 1e6 == pytest.approx(31.5, rel=0.01)


def test_one_small_image_trains():
    decoder = UPerNet(WIDTHS, (4, 8, 16, 32), width=6).train()
    decoder(pyramid(WIDTHS, (9, 9), batch=1)).features.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters())

import copy

import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import Encoder
from pixelcontrast.models.encoder import _memoryless
from pixelcontrast.models.recompute import blocks_of, recompute


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet18", 8), ("mobilenetv3_small_100", 11), ("vit_tiny_patch16_224", 12),
     ("mit_b0", 8), ("convnext_atto", 12)],
)  # fmt: skip
def test_blocks_are_the_published_ones(name, blocks):
    assert len(blocks_of(_memoryless(name, {}))) == blocks


def trained(encoder, image, seed=0):
    """Output, gradients and buffers after one forward and backward pass."""
    encoder.train()
    torch.manual_seed(seed)
    stages = encoder(image)
    sum((s * s).mean() for s in stages).backward()
    gradients = {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}
    return stages[-1].detach(), gradients, copy.deepcopy(dict(encoder.named_buffers()))


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "mit_b0"])
def test_gradients_and_statistics_stay_the_same(name):
    torch.manual_seed(0)
    plain = Encoder(name)
    again = copy.deepcopy(plain)
    assert recompute(again.net) > 0
    image = torch.randn(2, 3, 64, 64)
    for left, right in zip(trained(plain, image), trained(again, image), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def stored(encoder, image):
    """Bytes kept for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        stages = encoder(image)
    assert stages
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize("name", ["test_resnet", "mit_b0", "hrnet_w18_small"])
def test_less_is_stored(name):
    image = torch.randn(1, 3, 64, 64)
    plain = stored(Encoder(name).train(), image)
    # The stem's share, which is stored as before, is large in so small a network.
    assert stored(Encoder(name, checkpointing=True).train(), image) < 0.8 * plain


def test_a_copy_computes_with_its_own_weights():
    encoder = Encoder("test_resnet", checkpointing=True).train()
    twin = copy.deepcopy(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    image = torch.randn(2, 3, 32, 32)
    assert not encoder(image)[-1].any()
    assert twin(image)[-1].any()


def test_an_encoder_without_blocks_is_refused(monkeypatch):
    assert recompute(torch.nn.Conv2d(3, 3, 1)) == 0
    monkeypatch.setattr("pixelcontrast.models.encoder.recompute", lambda net: 0)
    with pytest.raises(ConfigError, match="no repeated blocks"):
        Encoder("test_resnet", checkpointing=True)

import copy

import pytest
import torch
from tests.models.tester import build, images
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pixelcontrast.models.fast import fold_batch_norm, suit_processor

NETWORKS = {
    ("test_resnet", "deeplabv3plus"): True,
    ("resnet10t", "deeplabv3plus_separable"): True,
    ("mobilenetv3_small_050", "maskformer"): True,
    ("hrnet_w18_small", "ocrnet"): True,
    ("mit_b0", "segformer"): True,
    ("convnext_atto", "linear"): False,
    ("vit_tiny_patch16_224", "linear"): False,
}


def norms(network):
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def settle(network):
    """Batch norms with statistics of their inputs, and weights that are not all alike."""
    for norm in norms(network):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None
    network.train()
    with torch.no_grad():
        network(images(2, 97, 130))
    return network.eval()


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def network(request):
    torch.manual_seed(0)
    encoder, decoder = request.param
    width = None if decoder == "linear" else 64
    model = settle(build(encoder, decoder, decoder_channels=width))
    assert bool(norms(model)) is NETWORKS[request.param]
    return model


def largest_gap(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


def test_folding_computes_the_same_map(network):
    image = images(2, 65, 90, seed=1)
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        deployed = network.deploy().segmentor
        assert largest_gap(deployed(image).logits, network(image).logits) < 1e-5
        assert largest_gap(exact.deploy().segmentor(image).logits, exact(image).logits) < 1e-12
    assert not norms(deployed)


def test_a_fast_copy_computes_the_same_map(network):
    image = images(2, 65, 90, seed=1)
    with torch.no_grad():
        assert largest_gap(network.fast_copy()(image).logits, network(image).logits) < 1e-5


def test_the_network_itself_stays_as_it_is(network):
    before = copy.deepcopy(network.state_dict())
    network.fast_copy()
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(c.dilation == (1, 1) for c in network.modules() if is_pointwise(c))


def is_pointwise(module):
    return isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)


class Pair(nn.Module):
    """A convolution and a norm, with a use of them that may forbid merging."""

    def __init__(self, use):
        super().__init__()
        self.first, self.norm, self.use = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), use
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.weight)

    def forward(self, x):
        return self.use(self, x)


USES = {
    "plain": lambda m, x: m.norm(m.first(x)),
    "described": lambda m, x: m.norm(y := m.first(x))[..., : y.shape[2]] + y.numel(),
    "between": lambda m, x: m.norm(m.first(x).relu()),
    "in place": lambda m, x: m.norm(m.first(x).relu_()),
    "read again": lambda m, x: m.norm(y := m.first(x)) + y,
    "viewed": lambda m, x: m.norm(y := m.first(x)) + y[:, :1],
    "read by data": lambda m, x: m.norm(y := m.first(x)) + y.data,
    "read later": lambda m, x: m.first(m.norm(m.first(x))),
    "norm twice": lambda m, x: m.norm(m.norm(m.first(x))),
    "weight read": lambda m, x: m.norm(m.first(x)) * m.first.weight.sum(),
    "handed out": lambda m, x: torch.cat([m.norm(y := m.first(x)), y]),
    "wanted": lambda m, x: {"logits": m.norm(y := m.first(x)), "raw": [y]},
    "norm alone": lambda m, x: m.norm(x) + m.first(x),
}


@pytest.mark.parametrize("use", USES)
def test_only_certain_pairs_are_merged(use):
    network = Pair(USES[use]).eval()
    image = torch.rand(2, 3, 5, 6)
    expected = network(image)
    assert fold_batch_norm(network, torch.zeros(1, 3, 4, 4)) == (use in ("plain", "described"))
    torch.testing.assert_close(network(image), expected)


@pytest.mark.parametrize("obstacle", ["hook", "training", "no statistics", "kind", "two places"])
def test_modules_that_do_more_stay(obstacle):
    network = Pair(USES["plain"]).eval()
    if obstacle == "hook":
        network.norm.register_forward_hook(lambda module, args, out: out + 1)
    elif obstacle == "training":
        network.norm.train()
    elif obstacle == "no statistics":
        network.norm = nn.BatchNorm2d(3, track_running_stats=False).eval()
    elif obstacle == "kind":
        network.norm = type("Louder", (nn.BatchNorm2d,), {})(3).eval()
    else:
        network.again = network.norm
    assert fold_batch_norm(network, torch.rand(1, 3, 4, 4)) == 0
    assert isinstance(network.norm, nn.BatchNorm2d)


def test_low_precision_stays_low():
    network = Pair(USES["plain"]).bfloat16().eval()
    assert fold_batch_norm(network, torch.zeros(1, 3, 4, 4, dtype=torch.bfloat16)) == 1
    assert network.first.weight.dtype == network.first.bias.dtype == torch.bfloat16


def test_a_suited_network_has_channels_last():
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
    image = torch.rand(2, 4, 7, 9)
    expected = network(image)
    suit_processor(network)
    found = network(image)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)

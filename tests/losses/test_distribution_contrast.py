import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import Distributions, distribution_info_nce, mutual_likelihood
from pixelcontrast.losses import distribution_contrast as module


def problem(groups=2, anchors=3, amount=4, virtual=3, dim=8, keys=20, dtype=torch.float64):
    torch.manual_seed(0)

    def gaussians(*shape, small=1e-3):
        return Distributions(
            torch.randn(*shape, dim, dtype=dtype),
            torch.rand(*shape, dim, dtype=dtype) + small,
        )

    own = Distributions(*(part.requires_grad_() for part in gaussians(groups, anchors)))
    return {
        "anchors": own,
        "positives": gaussians(groups),
        "keys": gaussians(keys),
        "negatives_GNM": torch.randint(keys, (groups, anchors, amount)),
        "virtual_GVD": torch.randn(groups, virtual, dim, dtype=dtype),
        "virtual_mask_GV": torch.rand(groups, virtual) > 0.3,
    }


def plain(anchors, positives, keys, negatives_GNM, virtual_GVD, virtual_mask_GV, temperature):
    """The slow obvious form: all scores in one tensor."""
    positive = mutual_likelihood(*anchors, *(part[:, None] for part in positives))
    wide = [part[:, :, None] for part in anchors]
    negative = mutual_likelihood(*wide, *(part[negatives_GNM] for part in keys))
    point = virtual_GVD[:, None]
    made_up = mutual_likelihood(*wide, point, torch.zeros_like(point))
    made_up = made_up.masked_fill(~virtual_mask_GV[:, None], -torch.inf)
    logits = torch.cat([positive[..., None], negative, made_up], -1) / temperature
    return logits.logsumexp(-1) - logits[..., 0]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 9),
    st.sampled_from([1.0, 100.0]),
)
def test_values_and_gradients_are_those_of_the_plain_form(
    groups, anchors, amount, virtual, dim, temperature
):
    given_ = problem(groups, anchors, amount, virtual, dim)
    upstream = torch.rand(groups, anchors, dtype=torch.float64)
    results = []
    for form in (distribution_info_nce, plain):
        losses = form(**given_, temperature=temperature)
        gradients = torch.autograd.grad((losses * upstream).sum(), given_["anchors"])
        results.append((losses.detach(), *gradients))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_chunks_do_not_change_the_result(monkeypatch):
    given_ = problem(dtype=torch.float32)
    whole = distribution_info_nce(**given_, temperature=1.0)
    gradient = torch.autograd.grad(whole.sum(), given_["anchors"])
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 4 * 4 * 8 * 2)  # two anchors at a time
    chunked = distribution_info_nce(**given_, temperature=1.0)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(torch.autograd.grad(chunked.sum(), given_["anchors"]), gradient, strict=True):
        torch.testing.assert_close(a, b)


def test_float32_is_close_to_float64():
    """At the published size, with prototypes as sure as after a whole training."""
    double = problem(1, 16, 64, 20, 256, keys=100)
    double["positives"].variance.fill_(3e-9)
    single = {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point()
        else Distributions(*(p.detach().float().requires_grad_() for p in value))
        if isinstance(value, Distributions)
        else value
        for name, value in double.items()
    }  # fmt: skip
    results = []
    for given_ in (double, single):
        losses = distribution_info_nce(**given_)
        gradient = torch.autograd.grad(losses.sum(), given_["anchors"])
        results.append((losses.detach(), *gradient))
    for exact, found in zip(*results, strict=True):
        assert found.dtype == torch.float32
        error = (found - exact).abs().max() / exact.abs().max()
        assert error < 1e-5


@pytest.mark.parametrize(
    ("reduction", "temperature", "expected"),
    [
        ("mean", 1.0, 0.474077),
        ("mean", 0.5, 0.313262),
        ("mean", 100.0, 0.690650),
        ("sum", 1.0, 0.313262),
    ],
)
def test_one_anchor_and_one_negative_by_hand(reduction, temperature, expected):
    half = torch.full((1, 2), 0.5)
    here, there = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    loss = distribution_info_nce(
        Distributions(here[None], half[None]),
        Distributions(here, half),
        Distributions(there, half),
        torch.zeros(1, 1, 1, dtype=torch.long),
        temperature=temperature,
        reduction=reduction,
    )
    assert loss.item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("virtual", "expected"), [(0, 6.240276), (80, 6.385194)])
def test_equal_logits_give_the_logarithm_of_their_number(virtual, expected):
    mean, variance = torch.ones(1, 1, 4), torch.full((1, 1, 4), 0.5)
    # A point has no variance: the others carry none either, so that all scores agree.
    none = torch.zeros(1, 4)
    loss = distribution_info_nce(
        Distributions(mean, variance),
        Distributions(mean[0], none),
        Distributions(mean[0], none),
        torch.zeros(1, 1, 512, dtype=torch.long),
        virtual_GVD=torch.ones(1, virtual, 4),
    )
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert loss.item() == pytest.approx(math.log(513 + virtual), abs=1e-5)


def test_without_negatives_the_loss_is_zero_and_attached():
    given_ = problem(amount=0, virtual=0)
    losses = distribution_info_nce(**given_)
    assert not losses.any()
    losses.sum().backward()
    assert all(not part.grad.any() for part in given_["anchors"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extremes_stay_finite_under_autocast(dtype):
    """Smallest variances of the head, vectors of length zero, points on the anchor."""
    given_ = problem(dtype=torch.float32)
    with torch.no_grad():
        for part in (given_["anchors"], given_["keys"]):
            part.variance.fill_(1e-6)
            part.mean[0].zero_()
        given_["virtual_GVD"][0] = 0
    with torch.autocast("cpu", dtype):
        losses = distribution_info_nce(**given_)
    assert losses.dtype == torch.float32
    losses.sum().backward()
    for part in (losses, given_["anchors"].mean.grad, given_["anchors"].variance.grad):
        assert torch.isfinite(part).all()


def test_without_gradients_none_are_computed():
    given_ = problem()
    with torch.no_grad():
        losses = distribution_info_nce(**given_)
    assert not losses.requires_grad
    torch.testing.assert_close(losses, distribution_info_nce(**given_).detach())


def test_faults_are_named():
    given_ = problem()
    with pytest.raises(ConfigError, match="temperature"):
        distribution_info_nce(**given_, temperature=0.0)
    with pytest.raises(ConfigError, match="reduction 'some'"):
        distribution_info_nce(**given_, reduction="some")
    with pytest.raises(ConfigError, match="negatives of sizes"):
        distribution_info_nce(**{**given_, "negatives_GNM": given_["negatives_GNM"][:1]})
    with pytest.raises(ConfigError, match="keys of sizes"):
        distribution_info_nce(
            **{**given_, "keys": Distributions(torch.ones(3, 2), torch.ones(3, 2))}
        )

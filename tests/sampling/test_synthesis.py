from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import (
    Mixture,
    Selection,
    draw_mixtures,
    mixed_similarities,
    mixed_vectors,
)


def recipe(key, other, weight):
    return Mixture(
        torch.tensor([[key]]),
        torch.tensor([[other]]),
        torch.tensor([[weight]]),
        torch.tensor([[True]]),
    )


def random_case(anchors=6, keys=30, dim=5, selected=8):
    g = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(anchors + keys, dim, generator=g), dim=1)
    rows = torch.stack([torch.randperm(keys, generator=g)[:selected] for _ in range(anchors)])
    number = torch.tensor([selected, 1, 0, 2, 5, selected])[:anchors]
    return (
        vectors[:anchors],
        vectors[anchors:],
        Selection(rows, torch.arange(selected) < number[:, None]),
    )


def test_closed_forms():
    anchor, keys = torch.eye(3)[:1], torch.eye(3)[1:]
    with_anchor = recipe(0, -1, 0.25)
    cosine = mixed_similarities(with_anchor, anchor, keys).item()
    assert cosine == pytest.approx(0.316227766, abs=1e-7)
    # One orthogonal positive, one orthogonal negative, tau = 0.1.
    assert math.log(2 + math.exp(cosine / 0.1)) == pytest.approx(3.24354280, abs=1e-6)
    pair = mixed_vectors(recipe(0, 1, 0.5), anchor, keys)[0, 0]
    assert (keys @ pair).tolist() == pytest.approx([0.707106781] * 2, abs=1e-7)
    assert torch.equal(mixed_vectors(recipe(0, 1, 0.0), anchor, keys)[0, 0], keys[0])


def test_mixes_only_the_own_valid_negatives():
    anchors, keys, selection = random_case()
    mixture = draw_mixtures(
        selection, pairs=200, with_anchor=100, generator=generator_for("cpu", 0)
    )
    assert mixture.key.shape == (6, 300)
    for row in range(6):
        own = set(selection.key[row][selection.valid[row]].tolist())
        pairs = mixture.valid[row, :200], mixture.key[row, :200], mixture.other[row, :200]
        assert pairs[0].all() if len(own) >= 2 else not pairs[0].any()
        assert mixture.valid[row, 200:].all() if own else not mixture.valid[row].any()
        if len(own) >= 2:
            assert set(pairs[1].tolist()) == own  # 200 draws reach each of at most 8
            assert set(pairs[2].tolist()) == own
            assert (pairs[1] != pairs[2]).all()
        assert (mixture.other[row, 200:] == -1).all()
    weight = mixture.weight
    assert weight[:, 200:].max() < 0.5  # the negative dominates
    assert weight[:, :200].mean().item() == pytest.approx(0.5, abs=0.05)
    assert weight[:, 200:].mean().item() == pytest.approx(0.25, abs=0.03)
    vectors = mixed_vectors(mixture, anchors, keys)
    torch.testing.assert_close(vectors[mixture.valid].norm(dim=1), torch.ones(mixture.valid.sum()))


@pytest.mark.parametrize("tile", [1, 40, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_similarities_equal_those_of_constant_vectors(tile, dtype):
    anchors, keys, selection = random_case()
    keys = keys.to(dtype)
    mixture = draw_mixtures(selection, pairs=4, with_anchor=3, generator=generator_for("cpu", 1))
    upstream = torch.rand(mixture.key.shape)

    def gradient(similarities, leaf):
        loss = torch.where(mixture.valid, similarities, 0).mul(upstream).sum()
        return torch.autograd.grad(loss, leaf)[0]

    leaf = anchors.clone().requires_grad_()
    constant = mixed_vectors(mixture, leaf, keys)
    assert not constant.requires_grad
    expected = torch.einsum("nsd,nd->ns", constant, leaf)
    similarities = mixed_similarities(mixture, leaf, keys, tile_elements=tile)
    torch.testing.assert_close(similarities[mixture.valid], expected[mixture.valid])
    assert (similarities[~mixture.valid] == -torch.inf).all()
    torch.testing.assert_close(gradient(similarities, leaf), gradient(expected, leaf))


def test_nothing_to_mix():
    none = Selection(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool))
    mixture = draw_mixtures(none, pairs=2, with_anchor=2, generator=generator_for("cpu", 0))
    assert not mixture.valid.any()
    anchors = torch.eye(2).requires_grad_()
    similarities = mixed_similarities(mixture, anchors, torch.eye(2))
    similarities.exp().sum().backward()
    assert not anchors.grad.any()
    switched_off = draw_mixtures(none, pairs=0, with_anchor=0, generator=generator_for("cpu", 0))
    assert mixed_similarities(switched_off, anchors, torch.eye(2)).shape == (2, 0)

import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import pixel_info_nce, sampled, sampled_info_nce


@pytest.fixture
def problem(unit_rows):
    rng = torch.Generator().manual_seed(0)
    a, _ = unit_rows(23, 8, 3)
    k, _ = unit_rows(40, 8, 3, seed=1)
    positives = torch.randint(0, 40, (23, 3), generator=rng)
    negatives = torch.randint(0, 40, (23, 6), generator=rng)
    keep = torch.rand(23, 3, generator=rng) < 0.6
    use = torch.rand(23, 6, generator=rng) < 0.6
    keep[4], use[5] = False, False
    return a, k, positives, negatives, keep, use


def loops(a, k, positives, negatives, keep, use, tau, denominator, synthetic=None):
    losses = []
    for i in range(len(a)):
        up = [float(a[i] @ k[p]) / tau for p, m in zip(positives[i], keep[i], strict=True) if m]
        down = [float(a[i] @ k[n]) / tau for n, m in zip(negatives[i], use[i], strict=True) if m]
        if synthetic is not None:
            down += [float(a[i] @ s) / tau for s in synthetic[i]]
        if not up:
            losses.append(0.0)
            continue
        terms = []
        for s in up:
            below = [s, *down] if denominator == "negatives" else [*up, *down]
            terms.append(math.log(sum(math.exp(b - s) for b in below)))
        losses.append(sum(terms) / len(terms))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("ratio", [0, 10**6])  # gathered vectors; a product with every key
@pytest.mark.parametrize("chunk", [1, 2**25])
def test_equals_loops_by_every_route(problem, monkeypatch, denominator, ratio, chunk):
    a, k, positives, negatives, keep, use = problem
    monkeypatch.setattr(sampled, "GATHER_RATIO", ratio)
    monkeypatch.setattr(sampled, "CHUNK_BYTES", chunk)
    synthetic = F.normalize(a[:, None] + k[negatives[:, :2]], dim=2)
    expected = loops(a, k, positives, negatives, keep, use, 0.2, denominator, synthetic)
    options = {
        "positive_mask_NP": keep,
        "negative_mask_NM": use,
        "synthetic_NSD": synthetic,
        "temperature": 0.2,
        "denominator": denominator,
    }
    loss = sampled_info_nce(a, positives, negatives, k, reduction="none", **options)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    vectors = sampled_info_nce(a, k[positives], k[negatives], reduction="none", **options)
    torch.testing.assert_close(vectors, expected, rtol=1e-12, atol=1e-12)
    mean = sampled_info_nce(a, positives, negatives, k, base_temperature=0.1, **options)
    assert mean.item() == pytest.approx(
        2 * expected.sum().item() / int(keep.any(1).sum()), rel=1e-12
    )


def test_gradients_reach_anchors_and_keys_but_nothing_made_up(problem, monkeypatch):
    a, k, positives, negatives, keep, use = problem
    synthetic = torch.rand(23, 2, 8, dtype=a.dtype, requires_grad=True)

    def grads(ratio, chunk):
        monkeypatch.setattr(sampled, "GATHER_RATIO", ratio)
        monkeypatch.setattr(sampled, "CHUNK_BYTES", chunk)
        x, y = a.clone().requires_grad_(), k.clone().requires_grad_()
        sampled_info_nce(
            x,
            positives,
            negatives,
            y,
            positive_mask_NP=keep,
            negative_mask_NM=use,
            synthetic_NSD=synthetic,
        ).backward()
        return x.grad, y.grad

    expected = grads(0, 2**30)
    for route in ((0, 500), (10**6, 500), (10**6, 2**30)):
        for grad, right in zip(grads(*route), expected, strict=True):
            torch.testing.assert_close(grad, right, rtol=1e-11, atol=1e-14)
    assert synthetic.grad is None
    assert not expected[0][4].any()  # no positive
    assert expected[0][5].any()  # only synthetic negatives


def test_all_keys_sampled_equal_the_full_contrast(unit_rows):
    a, y = unit_rows(12, 8, 3, ignored=0)
    k, z = unit_rows(30, 8, 3, seed=1, ignored=0)
    every = torch.arange(30).expand(12, -1)
    same = y[:, None] == z
    for denominator in ("negatives", "all"):
        loss = sampled_info_nce(
            a,
            every,
            every,
            k,
            positive_mask_NP=same,
            negative_mask_NM=~same,
            denominator=denominator,
        )
        full = pixel_info_nce(a, y, k, z, denominator=denominator)
        torch.testing.assert_close(loss, full, rtol=1e-12, atol=0)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("chunk", [1, 2**25])
def test_extra_similarities_are_further_samples(problem, monkeypatch, denominator, chunk):
    monkeypatch.setattr(sampled, "CHUNK_BYTES", chunk)
    a, k, positives, negatives, keep, use = problem
    found = []
    for split in (False, True):
        leaf = a.clone().requires_grad_()
        options = {"temperature": 0.2, "denominator": denominator}
        samples, masks = [positives, negatives], [keep, use]
        if split:  # the last sample of each kind, and one that plays no role
            outside = torch.cat([positives[:, -1:], negatives[:, -1:], negatives[:, :1]], 1)
            none = torch.zeros(len(a), 1, dtype=torch.bool)
            options["extra_NE"] = torch.bmm(k[outside], leaf[:, :, None])[:, :, 0]
            options["extra_positive_NE"] = torch.cat([keep[:, -1:], none, none], 1)
            options["extra_negative_NE"] = torch.cat([none, use[:, -1:], none], 1)
            samples, masks = ([t[:, :-1] for t in each] for each in (samples, masks))
        loss = sampled_info_nce(
            leaf, *samples, k, positive_mask_NP=masks[0], negative_mask_NM=masks[1], **options
        )
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_one_positive_is_cross_entropy_and_shared_negatives_broadcast(unit_rows):
    a, _ = unit_rows(9, 8, 2)
    k, _ = unit_rows(50, 8, 2, seed=1)
    loss = sampled_info_nce(a, k[None, :1], k[None, 1:], temperature=0.5)
    expected = F.cross_entropy(a @ k.T / 0.5, torch.zeros(9, dtype=torch.long))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    indexed = sampled_info_nce(
        a, torch.tensor([[0]]), torch.arange(1, 50)[None], k, temperature=0.5
    )
    torch.testing.assert_close(indexed, expected, rtol=1e-12, atol=0)


def test_synthetic_negative_closed_form():
    # an anchor orthogonal to its positive and its negative, and one mixed negative nearby
    e = torch.eye(3, dtype=torch.float64)
    a, k = e[:1], e[1:]
    first, second = torch.tensor([[0]]), torch.tensor([[1]])
    plain = sampled_info_nce(a, first, second, k)
    assert plain.item() == pytest.approx(math.log(2), rel=1e-12)
    mixed = F.normalize(0.25 * a + 0.75 * k[1:], dim=1)
    harder = sampled_info_nce(a, first, second, k, synthetic_NSD=mixed[None])
    assert harder.item() == pytest.approx(3.24354280, rel=1e-8)


def test_u2pl_scale_check():
    # 50 negatives opposite, orthogonal, equal to the positive; temperature 0.5
    e = torch.eye(2, dtype=torch.float64)
    for other, value in ((-e[0], 0.650126), (e[1], 2.04985), (e[0], 3.931826)):
        loss = sampled_info_nce(e[:1], e[None, :1], other.expand(1, 50, 2), temperature=0.5)
        assert loss.item() == pytest.approx(value, abs=1e-5)


def test_nothing_to_do_is_zero_with_a_graph():
    a = torch.rand(0, 4, requires_grad=True)
    loss = sampled_info_nce(a, torch.empty(0, 2, 4), torch.empty(0, 3, 4))
    loss.backward()
    assert loss == 0
    rows = torch.rand(3, 4, requires_grad=True)
    lonely = sampled_info_nce(rows, torch.empty(3, 0, 4), torch.rand(3, 2, 4))
    lonely.backward()
    assert lonely == 0
    assert not rows.grad.any()
    unopposed = sampled_info_nce(rows, torch.rand(3, 2, 4), torch.empty(3, 0, 4))
    assert unopposed == 0


def test_errors_name_the_mistake(problem):
    a, k, positives, negatives, keep, _ = problem
    for match, call in {
        "indices without keys": lambda: sampled_info_nce(a, positives, negatives),
        "positives of": lambda: sampled_info_nce(a, positives[:5], negatives, k),
        "columns": lambda: sampled_info_nce(a, k[positives][..., :3], negatives, k),
        "temperature": lambda: sampled_info_nce(a, positives, negatives, k, temperature=-1),
        "must be bool": lambda: sampled_info_nce(
            a, positives, negatives, k, positive_mask_NP=keep.long()
        ),
        "denominator": lambda: sampled_info_nce(a, positives, negatives, k, denominator="al"),
    }.items():
        with pytest.raises(ConfigError, match=match):
            call()


@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_the_gradient_of_anchors_alone_is_that_of_one_chunk(monkeypatch, denominator):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    positives = torch.randint(0, 40, (9, 2), generator=generator)
    negatives = torch.randint(0, 40, (9, 5), generator=generator)
    upstream = torch.randn(9, dtype=torch.float64, generator=generator)
    first = torch.randn(9, 6, dtype=torch.float64, generator=generator)
    found = []
    for chunk in (1, 2**30):
        monkeypatch.setattr(sampled, "CHUNK_BYTES", chunk)
        anchors = first.clone().requires_grad_()
        loss = sampled_info_nce(
            anchors, positives, negatives, keys, denominator=denominator, reduction="none"
        )
        loss.backward(upstream)
        found.append((loss.detach(), anchors.grad))
    torch.testing.assert_close(*(loss for loss, _ in found))
    torch.testing.assert_close(*(gradient for _, gradient in found))

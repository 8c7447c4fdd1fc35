from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import select_keys


def fan(count, label):
    """Unit vectors with distinct similarities to (1, 0), the most similar first."""
    angle = torch.linspace(0.01, 3.0, count)
    return torch.stack([angle.cos(), angle.sin()], 1), torch.full((count,), label)


def around_one_anchor(count=1000):
    """`count` positives and `count` negatives of the anchor (1, 0) of class 0, shuffled."""
    (near, zero), (far, one) = fan(count, 0), fan(count, 1)
    order = torch.randperm(2 * count, generator=torch.Generator().manual_seed(0))
    keys, labels = torch.cat([near, far])[order], torch.cat([zero, one])[order]
    return torch.tensor([[1.0, 0.0]]), torch.zeros(1, dtype=torch.long), keys, labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_semi_hard_draws_from_the_hardest_tenth(dtype):
    anchor, label, keys, key_labels = around_one_anchor()
    similarity = (keys @ anchor[0]).double()
    drawn = (set(), set())
    for seed in range(20):
        found = select_keys(
            anchor,
            label,
            keys.to(dtype),
            key_labels,
            positives=40,
            negatives=60,
            generator=generator_for("cpu", seed),
        )
        for role, (selection, number) in enumerate(zip(found, (40, 60), strict=True)):
            rows = selection.key[0]
            assert selection.valid.all()
            assert rows.shape == (number,)
            assert rows.unique().numel() == number
            assert (key_labels[rows] == role).all()
            drawn[role].update(rows.tolist())
    positive = torch.where(key_labels == 0)[0]
    negative = torch.where(key_labels == 1)[0]
    easiest_last = positive[similarity[positive].argsort()][:100]
    hardest = negative[similarity[negative].argsort(descending=True)][:100]
    # All of the window and nothing else, after enough draws.
    assert drawn[0] == set(easiest_last.tolist())
    assert drawn[1] == set(hardest.tolist())


def test_hardest_is_the_top_exactly():
    anchor, label, keys, key_labels = around_one_anchor()
    positives, negatives = select_keys(
        anchor,
        label,
        keys,
        key_labels,
        positives=7,
        negatives=11,
        strategy="hardest",
        generator=generator_for("cpu", 0),
    )
    similarity = keys @ anchor[0]
    assert torch.equal(similarity[positives.key[0]], similarity[key_labels == 0].sort().values[:7])
    assert torch.equal(
        similarity[negatives.key[0]],
        similarity[key_labels == 1].sort(descending=True).values[:11],
    )


def test_random_is_uniform_over_the_candidates():
    anchor, label, keys, key_labels = around_one_anchor(30)
    hits = torch.zeros(60)
    for seed in range(600):
        for selection in select_keys(
            anchor,
            label,
            keys,
            key_labels,
            positives=5,
            negatives=5,
            strategy="random",
            generator=generator_for("cpu", seed),
        ):
            hits[selection.key[0]] += 1
    expected = 600 * 5 / 30
    assert ((hits - expected) ** 2 / expected).sum() < 60 + 6 * math.sqrt(120)


def test_window_in_the_middle():
    anchor, label, keys, key_labels = around_one_anchor(100)
    _, negatives = select_keys(
        anchor,
        label,
        keys,
        key_labels,
        negatives=200,
        window=(0.29, 0.57),
        generator=generator_for("cpu", 0),
    )
    ranking = torch.where(key_labels == 1)[0]
    ranking = ranking[(keys @ anchor[0])[ranking].argsort(descending=True)]
    assert set(negatives.key[negatives.valid].tolist()) == set(ranking[29:57].tolist())


@pytest.mark.parametrize("strategy", ["random", "hardest", "semi_hard"])
def test_against_a_loop_in_tiles(strategy):
    g = torch.Generator().manual_seed(1)
    anchors = F.normalize(torch.randn(23, 6, generator=g), dim=1)
    keys = F.normalize(torch.randn(41, 6, generator=g), dim=1).half()
    anchor_labels = torch.randint(-1, 4, (23,), generator=g)
    key_labels = torch.randint(-1, 3, (41,), generator=g)
    own = torch.randint(-1, 41, (23,), generator=g)
    found = select_keys(
        anchors,
        anchor_labels,
        keys,
        key_labels,
        positives=4,
        negatives=25,
        strategy=strategy,
        window=(0.0, 0.5),
        self_index_N=own,
        generator=generator_for("cpu", 2),
        tile_elements=100,
    )
    similarity = anchors @ keys.float().T
    for row in range(23):
        for role, (selection, number) in enumerate(zip(found, (4, 25), strict=True)):
            label = anchor_labels[row].item()
            allowed = [
                k
                for k in range(41)
                if label >= 0
                and key_labels[k] >= 0
                and k != own[row]
                and (key_labels[k] == label) == (role == 0)
            ]
            allowed.sort(key=lambda k: similarity[row, k].item() * (1, -1)[role])
            if strategy == "semi_hard":
                allowed = allowed[: max(1, len(allowed) // 2)] if allowed else []
            rows = selection.key[row][selection.valid[row]].tolist()
            assert len(set(rows)) == len(rows) == min(number, len(allowed))
            assert set(rows) <= set(allowed)
            if strategy == "hardest":
                assert rows == allowed[:number]
            assert not (selection.valid[row].long().diff() > 0).any()  # valid entries first


def test_tenth_of_few_candidates():
    # 4037 positives: 403; 9 candidates: the single hardest one.
    keys, labels = fan(4037 + 9, 0)
    labels[4037:] = 1
    positives, negatives = select_keys(
        torch.tensor([[1.0, 0.0]]),
        torch.zeros(1, dtype=torch.long),
        keys,
        labels,
        generator=generator_for("cpu", 0),
    )
    assert positives.valid.sum() == 403
    assert negatives.key[negatives.valid].tolist() == [4037]


@pytest.mark.parametrize("strategy", ["random", "hardest", "semi_hard"])
@pytest.mark.parametrize(("anchors", "keys"), [(0, 5), (3, 0), (0, 0), (2, 1)])
def test_empty_sides(strategy, anchors, keys):
    found = select_keys(
        torch.ones(anchors, 2),
        torch.zeros(anchors, dtype=torch.long),
        torch.ones(keys, 2),
        torch.zeros(keys, dtype=torch.long),
        strategy=strategy,
        generator=generator_for("cpu", 0),
    )
    for selection, expected in zip(found, (anchors * keys, 0), strict=True):
        assert selection.key.shape[0] == anchors
        assert selection.valid.sum() == expected


def test_ranked_without_gradient_and_repeatably():
    anchor, label, keys, key_labels = around_one_anchor(50)
    anchor.requires_grad_()
    one, two = (
        select_keys(anchor, label, keys, key_labels, negatives=3, generator=generator_for("cpu", 4))
        for _ in range(2)
    )
    assert torch.equal(one[1].key, two[1].key)
    assert not one[1].key.requires_grad


def test_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match="semi-hard"):
        select_keys(*around_one_anchor(3), strategy="semi-hard", generator=generator_for("cpu", 0))

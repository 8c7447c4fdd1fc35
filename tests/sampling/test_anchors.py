from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import PixelPool, gather_pixels, sample_anchors, sample_per_class

IGNORE = 255


def draw_maps(seed, batch, height, width, classes, wrong=0.3, ignored=0.2):
    g = torch.Generator().manual_seed(seed)
    # Squares of uniform numbers: class 0 is common, the last ones rare.
    labels = (torch.rand(batch, height, width, generator=g) ** 3 * classes).long()
    shift = torch.randint(1, max(classes, 2), labels.shape, generator=g)
    predictions = torch.where(
        torch.rand(labels.shape, generator=g) < wrong, (labels + shift) % classes, labels
    )
    labels[torch.rand(labels.shape, generator=g) < ignored] = IGNORE
    return labels, predictions


def groups_of(labels, predictions, classes):
    """{(image, class): (easy pixels, hard pixels)} the obvious way."""
    found = {}
    pixels = labels[0].numel()
    for image, (label, guess) in enumerate(zip(labels, predictions, strict=True)):
        pairs = zip(label.flatten().tolist(), guess.flatten().tolist(), strict=True)
        for position, (a, b) in enumerate(pairs):
            if a != IGNORE and a < classes:
                found.setdefault((image, a), ([], []))[a != b].append(image * pixels + position)
    return found


def official_quota(easy, hard, n_view):
    """Of the authors' sampler: (easy, hard) of a group with at least n_view pixels."""
    if hard >= n_view / 2 and easy >= n_view / 2:
        return n_view - n_view // 2, n_view // 2
    if hard >= n_view / 2:
        return easy, n_view - easy
    return n_view - hard, hard


def expected_quotas(found, max_anchors, max_views, min_pixels):
    sizes = {key: len(e) + len(h) for key, (e, h) in found.items()}
    kept = [key for key, size in sizes.items() if size >= (min_pixels or 1)]
    n_view = max(1, min(max_anchors // max(len(kept), 1), max_views))
    quotas = {}
    for key in kept:
        easy, hard = map(len, found[key])
        target = min(n_view, easy + hard)
        quotas[key] = (easy, hard) if target < n_view else official_quota(easy, hard, n_view)
    return n_view, quotas


def count(sample):
    counts = Counter()
    for image, label, hard in zip(
        sample.image[sample.valid].tolist(),
        sample.labels[sample.valid].tolist(),
        sample.hard[sample.valid].tolist(),
        strict=True,
    ):
        counts[image, label, hard] += 1
    return {
        key: (counts[(*key, False)], counts[(*key, True)]) for key in {(i, c) for i, c, _ in counts}
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 4),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    classes=st.integers(1, 7),
    wrong=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ignored=st.sampled_from([0.0, 0.3, 1.0]),
    max_anchors=st.integers(1, 200),
    max_views=st.integers(1, 60),
    min_pixels=st.sampled_from([None, 1, 5, "official"]),
)
def test_quotas_distinct_and_of_the_right_class(
    seed, batch, size, classes, wrong, ignored, max_anchors, max_views, min_pixels
):
    if min_pixels == "official":
        min_pixels = max_views + 1
    labels, predictions = draw_maps(seed, batch, *size, classes, wrong, ignored)
    sample = sample_anchors(
        labels,
        predictions,
        num_classes=classes,
        ignore_index=IGNORE,
        max_anchors=max_anchors,
        max_views=max_views,
        min_pixels=min_pixels,
        generator=generator_for("cpu", seed),
    )
    found = groups_of(labels, predictions, classes)
    n_view, quotas = expected_quotas(found, max_anchors, max_views, min_pixels)
    if n_view == 1:  # the kind is a matter of chance where both exist
        assert {key: sum(pair) for key, pair in count(sample).items()} == {key: 1 for key in quotas}
    else:
        assert count(sample) == quotas

    index = sample.index[sample.valid]
    assert index.unique().numel() == index.numel()
    assert torch.equal(labels.flatten()[index], sample.labels[sample.valid])
    assert torch.equal(
        predictions.flatten()[index] != labels.flatten()[index], sample.hard[sample.valid]
    )
    assert torch.equal(index // labels[0].numel(), sample.image[sample.valid])
    assert index.numel() <= max(max_anchors, len(found))
    # What is not valid is harmless to look up and recognisable.
    assert sample.index.min() >= 0
    assert sample.index.max() < labels.numel()
    assert (sample.labels[~sample.valid] == -1).all()
    assert not sample.hard[~sample.valid].any()
    assert not (sample.valid.long().diff() > 0).any()  # valid rows first


@pytest.mark.parametrize(
    ("easy", "hard", "n_view", "quota"),
    [
        (60, 30, 10, (5, 5)),
        (3, 25, 10, (3, 7)),
        (40, 2, 10, (8, 2)),
        (13, 0, 10, (10, 0)),
        (60, 30, 7, (4, 3)),
        (3, 2, 10, (3, 2)),  # a small group gives what it has
    ],
)
def test_published_quotas(easy, hard, n_view, quota):
    labels = torch.zeros(1, easy + hard, dtype=torch.long)
    predictions = torch.cat([torch.zeros(easy), torch.ones(hard)])[None].long()
    sample = sample_anchors(
        labels,
        predictions,
        num_classes=2,
        max_views=n_view,
        min_pixels=1,
        generator=generator_for("cpu", 0),
    )
    assert count(sample) == {(0, 0): quota}


def test_one_view_is_hard_half_of_the_time():
    labels = torch.zeros(2000, 3, dtype=torch.uint8)  # as many images as draws
    predictions = torch.tensor([0, 0, 1]).expand(2000, 3)
    sample = sample_anchors(
        labels, predictions, num_classes=2, max_anchors=2000, generator=generator_for("cpu", 0)
    )
    assert sample.valid.sum() == 2000
    assert sample.hard.sum().item() == pytest.approx(1000, abs=4 * math.sqrt(500))
    # Only one kind at hand: take that, whatever the coin says.
    for guess in (0, 1):
        certain = sample_anchors(
            labels,
            torch.full_like(labels, guess),
            num_classes=2,
            max_anchors=2000,
            generator=generator_for("cpu", 0),
        )
        assert certain.valid.sum() == 2000
        assert certain.hard.sum() == 2000 * guess


def test_a_minimum_leaves_its_budget_to_the_others():
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([50, 30, 6, 2]))[None]
    for minimum, expected in (
        (None, [15, 15, 6, 2]),
        (6, [20, 20, 6]),
        (7, [30, 30]),
        (31, [50]),
    ):
        sample = sample_anchors(
            labels,
            None,
            num_classes=4,
            max_anchors=60,
            min_pixels=minimum,
            generator=generator_for("cpu", 0),
        )
        assert sample.labels[sample.valid].bincount().tolist() == expected


def test_more_groups_than_budget_still_give_one_each():
    labels = torch.arange(50).view(1, 50)
    sample = sample_anchors(
        labels, labels, num_classes=60, max_anchors=8, generator=generator_for("cpu", 0)
    )
    assert sorted(sample.labels[sample.valid].tolist()) == list(range(50))


def test_every_pixel_of_a_kind_is_equally_likely():
    labels = torch.zeros(1, 40, dtype=torch.long)
    predictions = (torch.arange(40) >= 30).long()[None]
    hits = torch.zeros(40)
    for seed in range(1500):
        sample = sample_anchors(
            labels,
            predictions,
            num_classes=2,
            max_views=6,
            generator=generator_for("cpu", seed),
        )
        hits[sample.index[sample.valid]] += 1
    for kind in (hits[:30], hits[30:]):
        share = kind.sum() / kind.numel()
        assert ((kind - share) ** 2 / share).sum() < kind.numel() + 6 * math.sqrt(2 * kind.numel())
    assert hits[:30].sum() == hits[30:].sum() == 1500 * 3


def test_without_predictions_or_with_hard_ones_first():
    labels, predictions = draw_maps(3, 2, 20, 20, 3, ignored=0.0)
    options = {"num_classes": 3, "max_anchors": 60, "min_pixels": 1}
    random = sample_anchors(labels, None, **options, generator=generator_for("cpu", 1))
    assert not random.hard.any()
    assert set(count(random).values()) == {(10, 0)}
    hard = sample_anchors(
        labels, predictions, **options, hard_fraction=1.0, generator=generator_for("cpu", 1)
    )
    for (image, label), (easy, tough) in groups_of(labels, predictions, 3).items():
        assert count(hard)[image, label] == (max(0, 10 - len(tough)), min(10, len(tough)))
        assert easy


@pytest.mark.parametrize("value", [IGNORE, 7, -1])
def test_nothing_to_sample(value):
    labels = torch.full((2, 4, 4), value)
    sample = sample_anchors(labels, labels * 0, num_classes=7, generator=generator_for("cpu", 0))
    assert not sample.valid.any()
    assert (sample.labels == -1).all()
    assert not sample_per_class(
        labels, 3, num_classes=7, generator=generator_for("cpu", 0)
    ).valid.any()


@pytest.mark.parametrize("ignore_index", [0, 2, -1, 255])
def test_any_ignore_value(ignore_index):
    labels = torch.arange(3).repeat_interleave(20)[None].clone()
    if ignore_index not in (0, 2):
        labels[0, :5] = ignore_index
    sample = sample_anchors(
        labels,
        None,
        num_classes=3,
        ignore_index=ignore_index,
        generator=generator_for("cpu", 0),
    )
    drawn = labels.flatten()[sample.index[sample.valid]]
    assert drawn.numel()
    assert not (drawn == ignore_index).any()


def test_repeatable_and_without_global_randomness():
    labels, predictions = draw_maps(5, 2, 16, 16, 4)
    state = torch.get_rng_state()
    one, two, other = (
        sample_anchors(
            labels.to(kind), predictions, num_classes=4, generator=generator_for("cpu", seed)
        )
        for seed, kind in ((1, torch.int64), (1, torch.uint8), (2, torch.int64))
    )
    assert torch.equal(one.index, two.index)
    assert not torch.equal(one.index, other.index)
    assert torch.equal(state, torch.get_rng_state())


def test_per_class_and_image():
    labels, _ = draw_maps(8, 3, 12, 12, 5)
    sample = sample_per_class(labels, 10, num_classes=5, generator=generator_for("cpu", 0))
    assert sample.index.shape == (3 * 5 * 10,)
    index = sample.index[sample.valid]
    assert index.unique().numel() == index.numel()
    assert torch.equal(labels.flatten()[index], sample.labels[sample.valid])
    drawn = {key: sum(pair) for key, pair in count(sample).items()}
    present = groups_of(labels, labels, 5)
    assert drawn == {key: min(10, len(easy)) for key, (easy, _) in present.items()}


def test_per_class_from_a_pool_takes_every_pixel_equally_often():
    labels = torch.zeros(1, 30, dtype=torch.uint8)
    predictions = (torch.arange(30) >= 24)[None].long()  # 24 easy, 6 hard
    hits, kinds = torch.zeros(30), Counter()
    for seed in range(900):
        generator = generator_for("cpu", seed)
        pool = PixelPool.build(labels, predictions, num_classes=1, generator=generator)
        index = pool.per_class(10, generator=generator).index
        assert index.unique().numel() == 10
        hits[index] += 1
        kinds[int((index >= 24).sum())] += 1
    assert ((hits - 300) ** 2 / 300).sum() < 30 + 6 * math.sqrt(60)
    assert set(kinds) == {2}  # both kinds in proportion


def test_anchors_and_memory_entries_from_one_pool():
    labels, predictions = draw_maps(2, 2, 16, 16, 4)
    options = {"num_classes": 4, "ignore_index": IGNORE}
    pool = PixelPool.build(labels, predictions, **options, generator=generator_for("cpu", 1))
    sample = pool.anchors(max_anchors=50, generator=generator_for("cpu", 2))
    kept = pool.per_class(3, generator=generator_for("cpu", 2))
    found = groups_of(labels, predictions, 4)
    assert count(sample) == expected_quotas(found, 50, 100, None)[1]
    assert torch.equal(labels.flatten()[kept.index[kept.valid]], kept.labels[kept.valid])
    assert kept.valid.sum() == sum(min(3, len(e) + len(h)) for e, h in found.values())


@pytest.mark.parametrize("classes", [254, 300])
def test_byte_labels_with_many_classes(classes):
    labels = torch.tensor([[0, 43, 44, 253]], dtype=torch.uint8)
    sample = sample_anchors(labels, None, num_classes=classes, generator=generator_for("cpu", 0))
    assert sample.labels[sample.valid].tolist() == [0, 43, 44, 253]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gather_takes_the_vectors_and_returns_their_gradient(memory_format):
    maps = torch.rand(3, 5, 4, 6).to(memory_format=memory_format).requires_grad_()
    index = torch.tensor([0, 71, 24, 25, 0])
    rows = gather_pixels(maps, index)
    for row, position in zip(rows, index.tolist(), strict=True):
        image, rest = divmod(position, 24)
        assert torch.equal(row, maps[image, :, rest // 6, rest % 6])
    upstream = torch.rand_like(rows)
    rows.backward(upstream)
    expected = torch.zeros(3, 24, 5)
    for row, position in zip(upstream, index.tolist(), strict=True):
        expected[position // 24, position % 24] += row
    torch.testing.assert_close(maps.grad.flatten(2).mT, expected)
    assert torch.equal(gather_pixels(maps.flatten(2), index), rows)

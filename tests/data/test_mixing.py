import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gloo import two_processes

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.mixing import (
    MixInput,
    area_boxes,
    class_keep,
    cut_out,
    half_area_boxes,
    mix,
    partners,
    paste,
    random_mix,
)
from pixelcontrast.data.views import inside_boxes


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(count=3, size=(9, 12), classes=5, seed=0, dtype=torch.uint8):
    g = generator(seed)
    return MixInput(
        image=torch.randint(0, 256, (count, 3, *size), generator=g).to(dtype),
        label=torch.randint(0, classes, (count, *size), generator=g).to(torch.uint8),
        confidence=torch.rand(count, *size, generator=g),
        valid=torch.rand(count, *size, generator=g) > 0.2,
    )


def slow_mix(own, keep, partner):
    out = MixInput(*(t.clone() for t in (own.image, own.label, own.confidence, own.valid)))
    for i in range(keep.shape[0]):
        for y in range(keep.shape[1]):
            for x in range(keep.shape[2]):
                if not keep[i, y, x]:
                    source, j = partner(i)
                    out.image[i, :, y, x] = source.image[j, :, y, x]
                    out.label[i, y, x] = source.label[j, y, x]
                    out.confidence[i, y, x] = source.confidence[j, y, x]
                    out.valid[i, y, x] = source.valid[j, y, x]
    return out


def assert_equal(a, b):
    for name in ("image", "label", "confidence", "valid"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert getattr(a, name).dtype == getattr(b, name).dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("count", [2, 3])
def test_mix_equals_loops(count, dtype):
    own = batch(count, dtype=dtype)
    keep = torch.rand(count, 9, 12, generator=generator(9)) > 0.5
    pairs = {2: [1, 0], 3: [1, 0, 0]}[count]
    assert_equal(mix(own, keep), slow_mix(own, keep, lambda i: (own, pairs[i])))
    other = batch(count, seed=1, dtype=dtype)
    assert_equal(mix(own, keep, other), slow_mix(own, keep, lambda i: (other, i)))


def test_mix_extremes_and_missing_parts():
    own, other = batch(), batch(seed=1)
    everything = torch.ones(3, 9, 12, dtype=torch.bool)
    assert_equal(mix(own, everything), own)
    assert_equal(mix(own, ~everything, other), other)
    only = mix(MixInput(own.image), everything, MixInput(other.image))
    assert only.label is None
    assert only.valid is None
    with pytest.raises(ValueError, match="same parts"):
        mix(own, everything, MixInput(other.image))


@pytest.mark.parametrize("count", range(2, 9))
def test_a_partner_is_another_image_and_pairs_survive_even_splits(count):
    found = partners(count).tolist()
    assert all(i != j for i, j in enumerate(found))
    if count % 4 == 0:
        half = partners(count // 2)
        assert found == [*half.tolist(), *(half + count // 2).tolist()]


def test_paste_takes_maps_with_and_without_channels():
    keep = torch.tensor([[[True, False]]])
    mine, theirs = torch.ones(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    assert paste(keep, mine, theirs).tolist() == [[[[1, 0]], [[1, 0]]]]
    assert paste(keep, mine[:, 0], theirs[:, 0]).tolist() == [[[1, 0]]]


def test_one_image_needs_a_partner():
    own, keep = batch(1), torch.zeros(1, 9, 12, dtype=torch.bool)
    with pytest.raises(ConfigError, match="itself"):
        mix(own, keep)
    with pytest.raises(ConfigError, match="itself"):
        random_mix("cutmix", own, num_classes=5, ignore_index=255, generator=generator())
    assert_equal(mix(own, keep, batch(1, seed=1)), batch(1, seed=1))


def test_cut_out_equals_loops():
    own = batch()
    keep = torch.rand(3, 9, 12, generator=generator(9)) > 0.5
    cut = cut_out(own, keep, fill=(10, 20, 30), ignore_index=255)
    for i, y, x in np.ndindex(3, 9, 12):
        if keep[i, y, x]:
            assert torch.equal(cut.image[i, :, y, x], own.image[i, :, y, x])
            assert cut.label[i, y, x] == own.label[i, y, x]
            assert cut.confidence[i, y, x] == own.confidence[i, y, x]
            assert cut.valid[i, y, x] == own.valid[i, y, x]
        else:
            assert cut.image[i, :, y, x].tolist() == [10, 20, 30]
            assert cut.label[i, y, x] == 255
            assert cut.confidence[i, y, x] == 0
            assert not cut.valid[i, y, x]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None)
def test_boxes_lie_inside_for_any_size(height, width, seed):
    for boxes in (
        half_area_boxes(6, (height, width), generator=generator(seed)),
        area_boxes(6, (height, width), generator=generator(seed), probability=1.0),
    ):
        top, bottom, left, right = boxes.unbind(1)
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (bottom <= height).all()
        assert (right <= width).all()
        assert (bottom >= top).all()
        assert (right >= left).all()


def test_half_boxes_cover_half_and_reach_everywhere():
    boxes = half_area_boxes(2000, (60, 80), generator=generator())
    top, bottom, left, right = boxes.unbind(1)
    across = right - left
    assert across.min() >= 41
    assert across.max() == 79
    torch.testing.assert_close(bottom - top, torch.round(2400 / across).long())
    inside = inside_boxes(boxes, (60, 80))
    assert ((inside.float().mean((1, 2)) - 0.5).abs() < 0.011).all()
    assert inside.any(0).all()
    assert not inside.all(0).any()


def slow_unimatch_box(height, width, rng):
    """UniMatch's rule as its paper's code states it: draw until the box fits."""
    area = rng.uniform(0.02, 0.4) * height * width
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        across, down = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        x, y = rng.integers(0, width), rng.integers(0, height)
        if x + across <= width and y + down <= height:
            return y, y + down, x, x + across


def test_area_boxes_follow_the_rejection_rule():
    boxes = area_boxes(4000, (64, 64), generator=generator(), probability=1.0).numpy()
    rng = np.random.default_rng(0)
    slow = np.array([slow_unimatch_box(64, 64, rng) for _ in range(4000)])

    def moments(b):
        down, across = b[:, 1] - b[:, 0], b[:, 3] - b[:, 2]
        return np.array(
            [*b.mean(0), *b.std(0), (down * across).mean() / 64, down.std(), (across / down).mean()]
        )

    np.testing.assert_allclose(moments(boxes), moments(slow), rtol=0.05, atol=0.3)
    kept = area_boxes(4000, (64, 64), generator=generator()).any(1).float().mean()
    assert abs(kept - 0.5) < 0.03


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_class_keep_equals_loops(dtype):
    label = torch.randint(0, 6, (8, 11, 13), generator=generator(1))
    label[0] = 3  # one class: nothing is kept
    label[1] = 255  # none
    label[2, :5] = 255
    label = label.to(dtype)
    keep = class_keep(label, num_classes=6, generator=generator(2))
    for i in range(8):
        present = {int(v) for v in label[i].unique() if v < 6}
        kept = {int(v) for v in label[i][keep[i]].unique()}
        assert len(kept) == len(present) // 2
        assert kept <= present
        for value in kept:
            assert keep[i][label[i] == value].all()


def test_class_keep_chooses_evenly():
    label = torch.arange(4).view(1, 2, 2).expand(4000, 2, 2)
    share = class_keep(label, num_classes=4, generator=generator()).float().mean(0)
    assert (share - 0.5).abs().max() < 0.03


def test_random_mix_kinds():
    own = batch(4, (20, 24))
    options = {"num_classes": 5, "ignore_index": 255}

    def run(kind, seed=0, **more):
        return random_mix(kind, own, generator=generator(seed), **options, **more)

    assert run("none") is own
    for kind in ("cutmix", "classmix", "cutout"):
        assert_equal(run(kind), run(kind))
        assert not torch.equal(run(kind).image, run(kind, 1).image)
    inside = inside_boxes(half_area_boxes(4, (20, 24), generator=generator()), (20, 24))
    assert_equal(run("cutmix"), mix(own, ~inside))
    assert_equal(run("cutout"), cut_out(own, ~inside, fill=(124, 116, 104), ignore_index=255))
    keep = class_keep(own.label, num_classes=5, generator=generator()) & own.valid
    assert_equal(run("classmix"), mix(own, keep))
    with pytest.raises(ConfigError, match="labels"):
        random_mix("classmix", MixInput(own.image), generator=generator(), **options)


def shares(rank):
    own = batch(4, (20, 24))
    half = MixInput(*(t[2 * rank : 2 * rank + 2] for t in (own.image, own.label)))
    options = {"num_classes": 5, "ignore_index": 255}
    mixed = [
        random_mix(kind, half, generator=generator(3), **options).image.numpy()
        for kind in ("cutmix", "classmix", "cutout")
    ]
    return [*mixed, area_boxes(2, (20, 24), generator=generator(3)).numpy()]


def test_two_processes_mix_as_one():
    own = batch(4, (20, 24))
    whole = MixInput(own.image, own.label)
    halves = two_processes(shares)
    for place, kind in enumerate(("cutmix", "classmix", "cutout")):
        single = random_mix(
            kind, whole, num_classes=5, ignore_index=255, generator=generator(3)
        ).image
        np.testing.assert_array_equal(
            np.concatenate([half[place] for half in halves]), single.numpy()
        )
    boxes = np.concatenate([half[3] for half in halves])
    np.testing.assert_array_equal(boxes, area_boxes(4, (20, 24), generator=generator(3)).numpy())

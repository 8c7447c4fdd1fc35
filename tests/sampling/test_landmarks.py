import pytest
import torch
from benchmarks.opcount import OpCount
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.sampling import draw_pixels, select_landmarks


def slow(features, count, first, valid=None):
    """One image, pixel by pixel: flat numbers in the order of selection."""
    rows = features.double().flatten(1).t()
    allowed = [p for p in range(len(rows)) if valid is None or valid.flatten()[p]]
    unit = {p: rows[p] / rows[p].norm().clamp_min(1e-12) for p in allowed}
    chosen = [first]
    while len(chosen) < min(count, len(allowed)):
        left = [p for p in allowed if p not in chosen]
        whole = [p for p in left if rows[p].norm() > 0] or left
        chosen.append(min(whole, key=lambda p: max(abs(unit[p] @ unit[c]) for c in chosen)))
    return chosen


def test_hand_computed_example():
    pixels = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.8]])
    features = pixels.t().reshape(1, 3, 2, 2)
    found = select_landmarks(features, 3, torch.tensor([0]))
    assert found.index.tolist() == [[0, 2, 3]]
    assert found.present.all()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), st.integers(2, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 30),
    st.booleans(), st.integers(0, 1000),
)  # fmt: skip
def test_equals_the_slow_form_image_by_image(batch, width, height, length, count, masked, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, width, height, length, generator=generator).double()
    valid = torch.ones(batch, height, length, dtype=torch.bool)
    if masked:
        valid = torch.rand(valid.shape, generator=generator) < 0.7
        features = features * (torch.rand(batch, 1, height, length, generator=generator) < 0.7)
    allowed = valid & (features != 0).any(1)
    allowed = allowed.where(allowed.any((1, 2), keepdim=True), valid)
    first = draw_pixels(torch.rand(batch, generator=generator), allowed)
    found = select_landmarks(features, count, first, valid)
    for image in range(batch):
        if not valid[image].any():
            assert not found.present[image].any()
            continue
        expected = slow(features[image], count, int(first[image]), valid[image])
        assert found.index[image, found.present[image]].tolist() == expected
        assert not found.present[image, len(expected) :].any()


def test_padding_and_dead_pixels_are_not_taken_first():
    features = torch.rand(1, 8, 6, 6)
    features[:, :, :, 4:] = 0  # dead
    valid = torch.ones(1, 6, 6, dtype=torch.bool)
    valid[:, 4:] = False
    found = select_landmarks(features, 30, torch.tensor([0]), valid)
    index = found.index[found.present]
    assert len(index) == len(set(index.tolist())) == 24
    assert (index // 6 < 4).all()
    assert (index[:16] % 6 < 4).all()
    assert (index[16:] % 6 >= 4).all()


def test_the_choice_does_not_depend_on_the_length_of_features():
    features = torch.rand(2, 8, 7, 9)
    first = torch.tensor([3, 50])
    plain = select_landmarks(features, 10, first)
    scaled = select_landmarks(features * 2.0 ** torch.randint(-3, 3, (2, 1, 7, 9)), 10, first)
    assert torch.equal(plain.index, scaled.index)


def test_autocast_changes_nothing():
    features, first = torch.rand(2, 8, 7, 9), torch.tensor([3, 50])
    plain = select_landmarks(features, 10, first)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(plain.index, select_landmarks(features, 10, first).index)


def test_drawn_pixels_are_uniform_over_those_allowed():
    allowed = torch.tensor([[[0, 1, 0], [1, 0, 1]], [[1, 1, 1], [1, 1, 1]]], dtype=torch.bool)
    draws = (torch.arange(12) + 0.5) / 12
    found = torch.stack([draw_pixels(draw.expand(2), allowed) for draw in draws], 1)
    assert found[0].tolist() == [1] * 4 + [3] * 4 + [5] * 4
    assert found[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    almost_one = torch.tensor([1 - 2**-24, 1 - 2**-24])
    assert draw_pixels(almost_one, allowed).tolist() == [5, 5]


def test_nothing_allowed_gives_no_landmark():
    none = torch.zeros(1, 2, 2, dtype=torch.bool)
    first = draw_pixels(torch.tensor([0.5]), none)
    assert first.tolist() == [0]
    assert not select_landmarks(torch.rand(1, 3, 2, 2), 3, first, none).present.any()


def test_no_landmarks_is_an_error():
    with pytest.raises(ConfigError, match="0 landmarks"):
        select_landmarks(torch.rand(1, 3, 2, 2), 0, torch.tensor([0]))


def test_no_value_is_read_back():
    with FakeTensorMode():
        features = torch.rand(2, 8, 7, 9, device="cuda")
        valid = torch.ones(2, 7, 9, dtype=torch.bool, device="cuda")
        first = draw_pixels(torch.rand(2, device="cuda"), valid)
        assert select_landmarks(features, 10, first, valid).index.shape == (2, 10)
    with OpCount() as count:
        select_landmarks(torch.rand(2, 8, 7, 9), 10, torch.tensor([0, 1]))
    assert not count.forcing

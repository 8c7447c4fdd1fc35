from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.colour import ColourConfig
from pixelcontrast.data.views import (
    Geometry,
    ViewConfig,
    draw_geometry,
    draw_view,
    inside_boxes,
    relative_geometry,
    replay_on_features,
    warp_image,
    warp_mask,
)

FILL = (1, 2, 3)
side = st.integers(1, 24)


@st.composite
def geometries(draw, zoom=(0.3, 3.0)):
    size = (draw(side), draw(side))
    config = ViewConfig(
        crop=(draw(side), draw(side)),
        scale=zoom,
        aspect=draw(st.sampled_from([(1.0, 1.0), (0.8, 1.2)])),
        balanced_scale=draw(st.booleans()),
    )
    return draw_geometry(size, config, np.random.default_rng(draw(st.integers(0, 10_000))))


def mapped(geometry, x, y):
    """Exact source coordinates of a crop pixel, from the meaning of the fields."""
    if geometry.flip:
        x = geometry.crop[1] - 1 - x
    u = Fraction(2 * (x + geometry.left) + 1, 2) * Fraction(geometry.source[1], geometry.scaled[1])
    v = Fraction(2 * (y + geometry.top) + 1, 2) * Fraction(geometry.source[0], geometry.scaled[0])
    return u - Fraction(1, 2), v - Fraction(1, 2)


def slow_bilinear(image, geometry):
    """Every crop pixel by itself in float64; borders repeated, padding left at FILL."""
    height, width = geometry.source
    out = np.empty((*geometry.crop, 3))
    out[:] = FILL
    image = image.astype(np.float64)
    for y in range(geometry.crop[0]):
        for x in range(geometry.crop[1]):
            u, v = (float(c) for c in mapped(geometry, x, y))
            if not (-0.5 <= u < width - 0.5 and -0.5 <= v < height - 0.5):
                continue
            u, v = min(max(u, 0), width - 1), min(max(v, 0), height - 1)
            x0, y0 = int(u), int(v)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            a, b = u - x0, v - y0
            above = (1 - a) * image[y0, x0] + a * image[y0, x1]
            below = (1 - a) * image[y1, x0] + a * image[y1, x1]
            out[y, x] = (1 - b) * above + b * below
    return out


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def smooth(size, seed=0):
    small = noise((4, 5), seed)
    return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_matrix_box_and_nearest_say_the_same_as_exact_arithmetic(geometry):
    matrix = geometry.matrix()
    top, bottom, left, right = geometry.valid_box()
    rows, columns = geometry.nearest()
    height, width = geometry.source
    assert bottom > top
    assert right > left
    for y in range(geometry.crop[0]):
        for x in range(geometry.crop[1]):
            u, v = mapped(geometry, x, y)
            assert np.abs(matrix @ (x, y, 1) - (float(u), float(v))).max() < 1e-9
            half = Fraction(1, 2)
            inside = -half <= u < width - half and -half <= v < height - half
            assert inside == (top <= y < bottom and left <= x < right)
            if inside:
                assert columns[x - left] == (u + half).__floor__()
                assert rows[y - top] == (v + half).__floor__()


@given(geometries(zoom=(0.51, 3.0)), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_warp_equals_slow_bilinear_within_fixed_point(geometry, seed):
    image = noise(geometry.source, seed)
    if geometry.source[0] >= 2 * geometry.scaled[0] or geometry.source[1] >= 2 * geometry.scaled[1]:
        return  # rounding of tiny sizes: low-pass filtered, tested below
    difference = np.abs(warp_image(image, geometry, FILL) - slow_bilinear(image, geometry))
    # OpenCV rounds positions to 1/32 pixel: up to 1/64 of 255 levels an axis, plus rounding.
    assert difference.max() <= 2 * 255 / 64 + 1.5


@given(geometries(), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_mask_equals_slow_nearest(geometry, seed):
    mask = np.random.default_rng(seed).integers(0, 200, geometry.source).astype(np.uint8)
    expected = np.full(geometry.crop, 255)
    for y in range(geometry.crop[0]):
        for x in range(geometry.crop[1]):
            u, v = ((c + Fraction(1, 2)).__floor__() for c in mapped(geometry, x, y))
            if 0 <= u < geometry.source[1] and 0 <= v < geometry.source[0]:
                expected[y, x] = mask[v, u]
    np.testing.assert_array_equal(warp_mask(mask, geometry, 255), expected)


def test_one_warp_equals_resizing_everything_and_cutting():
    image = smooth((120, 160))
    for seed in range(20):
        geometry = draw_geometry(
            (120, 160), ViewConfig(crop=(97, 129)), np.random.default_rng(seed)
        )
        if min(a / b for a, b in zip(geometry.scaled, geometry.source, strict=True)) <= 0.5:
            continue
        resized = cv2.resize(image, geometry.scaled[::-1], interpolation=cv2.INTER_LINEAR)
        top, bottom, left, right = geometry.valid_box()
        warped = warp_image(image, geometry, FILL)
        if geometry.flip:
            warped, left, right = warped[:, ::-1], 129 - right, 129 - left
        cut = resized[
            geometry.top + top : geometry.top + bottom,
            geometry.left + left : geometry.left + right,
        ]
        difference = np.abs(warped[top:bottom, left:right].astype(int) - cut.astype(int))
        assert difference.max() <= 3
        assert difference.mean() < 0.5


@pytest.mark.parametrize("flip", [False, True])
def test_zoom_one_copies_exactly(flip):
    image = noise((30, 40))
    geometry = Geometry((30, 40), (30, 40), (20, 50), top=4, left=-5, flip=flip)
    expected = np.empty((20, 50, 3), np.uint8)
    expected[:] = FILL
    expected[:, 5:45] = image[4:24]
    if flip:
        expected = expected[:, ::-1]
    np.testing.assert_array_equal(warp_image(image, geometry, FILL), expected)


@given(geometries(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_image_and_mask_stay_aligned(geometry, noisy):
    """The image stores its own coordinates, the mask its columns or rows: they must agree."""
    height, width = geometry.source
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    image = np.stack([x, y, x * 0], axis=2).astype(np.uint8) * 6
    warped = warp_image(image, geometry, FILL) / 6
    top, bottom, left, right = geometry.valid_box()
    shrink = max(a / b for a, b in zip(geometry.source, geometry.scaled, strict=True))
    for channel, coordinate in ((0, x), (1, y)):
        mask = warp_mask(coordinate.astype(np.uint8), geometry, 255)
        assert (mask[:top] == 255).all()
        assert (mask[:, right:] == 255).all()
        difference = warped[top:bottom, left:right, channel] - mask[top:bottom, left:right]
        # Within the pixel the nearest neighbour stands for, or the block that was averaged.
        assert np.abs(difference).max() <= max(0.5, shrink / 2) + 0.35


def test_strong_shrinking_averages_and_does_not_skip():
    board = np.indices((200, 300)).sum(0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    geometry = Geometry((200, 300), (50, 75), (50, 75), 0, 0)
    assert np.abs(warp_image(image, geometry, FILL).astype(float) - 127.5).max() <= 1
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (203, 301, 3)).astype(np.uint8)
    for scaled in ((60, 90), (101, 150), (40, 61), (1, 1)):
        geometry = Geometry((203, 301), scaled, scaled, 0, 0)
        area = cv2.resize(image, scaled[::-1], interpolation=cv2.INTER_AREA)
        got = warp_image(image, geometry, FILL).astype(float)
        # Noise: without a low-pass filter the deviation would stay near 74 levels.
        assert abs(got.std() - area.std()) < 14
        assert abs(got.mean() - area.mean()) < 1.5


@pytest.mark.parametrize("scaled", [(130, 170), (60, 71), (25, 31), (9, 11)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_is_a_part_of_the_whole(scaled, flip):
    """What is cut away before the warp must not matter, also where blocks are averaged."""
    image = noise((120, 150))
    height, width = scaled
    whole = warp_image(image, Geometry((120, 150), scaled, scaled, 0, 0), FILL)
    top, left, crop = height // 3, width // 4, (height // 2, width // 2)
    part = warp_image(image, Geometry((120, 150), scaled, crop, top, left, flip), FILL)
    part = part[:, ::-1] if flip else part
    expected = whole[top : top + crop[0], left : left + crop[1]]
    assert np.abs(part.astype(int) - expected.astype(int)).max() <= 9


def test_pixels_far_from_the_crop_are_not_read():
    image = np.zeros((100, 40_000, 3), np.uint8)  # more than OpenCV warps at once
    image[:, 35_000:35_064] = 200
    geometry = Geometry((100, 40_000), (100, 40_000), (64, 64), top=3, left=35_000)
    assert (warp_image(image, geometry, FILL) == 200).all()


def test_draws_cover_the_ranges_and_places():
    config = ViewConfig(crop=(10, 10), scale=(0.5, 2.0), flip=0.25)
    rng = np.random.default_rng(0)
    draws = [draw_geometry((16, 16), config, rng) for _ in range(4000)]
    zooms = np.array([g.scaled[0] / 16 for g in draws])
    assert zooms.min() == 0.5
    assert zooms.max() == 2.0
    assert abs(zooms.mean() - 1.25) < 0.03
    assert abs(np.mean([g.flip for g in draws]) - 0.25) < 0.03
    padded = [g.top for g in draws if g.scaled == (8, 8)]
    assert set(padded) == {-2, -1, 0}
    balanced = ViewConfig(crop=(10, 10), balanced_scale=True)
    zooms = np.array(
        [draw_geometry((160, 160), balanced, rng).scaled[0] / 160 for _ in range(4000)]
    )
    assert abs((zooms <= 1).mean() - 0.5) < 0.03
    assert abs(zooms[zooms > 1].mean() - 1.5) < 0.03


def test_short_side_and_aspect():
    rng = np.random.default_rng(1)
    fixed = ViewConfig(scale=(1.0, 1.0), short_side=520)
    assert draw_geometry((1040, 1300), fixed, rng).scaled == (520, 650)
    shaped = ViewConfig(scale=(1.0, 1.0), aspect=(0.9, 1.1))
    ratios = [
        g.scaled[1] / g.scaled[0]
        for g in (draw_geometry((1000, 1000), shaped, rng) for _ in range(300))
    ]
    assert min(ratios) >= 0.895
    assert min(ratios) < 0.92
    assert max(ratios) > 1.08


def test_same_seed_same_bytes_and_padding_is_marked():
    image, mask = noise((20, 30)), np.zeros((20, 30), np.uint8)
    config = ViewConfig(
        crop=(64, 64), scale=(0.5, 1.0), fill=(9, 8, 7), colour=ColourConfig(brightness_shift=10)
    )
    first, again, other = (
        draw_view(image, mask, config, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.image, again.image)
    assert first.geometry == again.geometry != other.geometry
    valid = inside_boxes(torch.tensor([first.geometry.valid_box()]), (64, 64))[0].numpy()
    np.testing.assert_array_equal(first.mask == 255, ~valid)
    plain = warp_image(image, first.geometry, config.fill)
    assert (plain[~valid] == (9, 8, 7)).all()
    assert draw_view(image, None, config, np.random.default_rng(3)).mask is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (0, 5)},
        {"scale": (2.0, 1.0)},
        {"aspect": (0.0, 1.0)},
        {"scale": (1.5, 2.0), "balanced_scale": True},
        {"short_side": 0},
        {"flip": 1.5},
        {"fill": (0, 0, 300)},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        ViewConfig(**wrong)


def coordinates(height, width):
    """(1, 2, H, W): x and y of every pixel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y])[None].float()


def crop_coordinates(geometry):
    """Source coordinates of every pixel of the crop, (2, H, W)."""
    points = coordinates(*geometry.crop)[0].double().numpy()
    ones = np.ones_like(points[:1])
    return np.einsum("ij,jhw->ihw", geometry.matrix(), np.concatenate([points, ones]))


@pytest.mark.parametrize("seed", range(6))
def test_replay_brings_one_view_into_the_frame_of_another(seed):
    """Maps that hold source coordinates must agree with those of the other view."""
    rng = np.random.default_rng(seed)
    a = draw_geometry((90, 120), ViewConfig(crop=(64, 80), scale=(0.6, 1.2)), rng)
    b = draw_geometry((90, 120), ViewConfig(crop=(72, 72), scale=(0.6, 1.2)), rng)
    relative = relative_geometry(
        torch.tensor(a.matrix())[None], torch.tensor(b.matrix())[None]
    ).float()
    features = torch.tensor(crop_coordinates(b), dtype=torch.float32)[None]
    got, inside = replay_on_features(features, relative, view=a.crop, other=b.crop, size=a.crop)
    expected = torch.tensor(crop_coordinates(a), dtype=torch.float32)[None]
    step = torch.tensor([abs(b.matrix()[0, 0]), b.matrix()[1, 1]]).float()[None, :, None, None]
    # Up to half a pixel outside the outermost centres the border is repeated.
    assert ((got - expected).abs() / step)[inside[:, None].expand_as(got)].max() < 0.5 + 1e-3
    outside = F.pad((~inside).float()[:, None], (2, 2, 2, 2), value=1.0)
    core = F.max_pool2d(outside, 5, 1)[0, 0] == 0
    assert core.sum() > 50
    assert ((got - expected).abs()[0, :, core]).max() < 0.02
    assert (got[0, :, ~inside[0]] == 0).all()
    first, last = crop_coordinates(b)[:, 0, 0], crop_coordinates(b)[:, -1, -1]
    low, high = np.minimum(first, last), np.maximum(first, last)
    half = step[0].numpy() / 2
    shown = (expected[0].numpy() >= low[:, None, None] - half) & (
        expected[0].numpy() <= high[:, None, None] + half
    )
    assert (inside[0].numpy() != shown.all(0)).mean() < 0.001  # points on the very edge may differ


@pytest.mark.parametrize("align_corners", [False, True])
def test_replay_on_coarse_maps_knows_where_cells_lie(align_corners):
    """A coarse map that holds the pixel coordinates of its cells, seen through a shift and flip."""
    view, other, cells, size = (65, 65), (65, 65), (17, 17), (33, 33)

    def centres(count, pixels):
        at = torch.arange(count).double()
        if align_corners:
            return at * (pixels - 1) / (count - 1)
        return (at + 0.5) * pixels / count - 0.5

    y, x = torch.meshgrid(centres(17, 65), centres(17, 65), indexing="ij")
    features = torch.stack([x, y])[None].float()
    geometry = torch.tensor([[[-0.5, 0.0, 50.0], [0.0, 0.5, 12.0]]])
    got, inside = replay_on_features(
        features, geometry, view=view, other=other, size=size, align_corners=align_corners
    )
    assert features.shape[-2:] == cells
    wanted_x = 50 - 0.5 * centres(33, 65)
    wanted_y = 12 + 0.5 * centres(33, 65)
    assert inside.all()
    assert (got[0, 0] - wanted_x[None, :]).abs().max() < 1e-3
    assert (got[0, 1] - wanted_y[:, None]).abs().max() < 1e-3


def test_replay_nearest_flips_labels_exactly_and_passes_gradients():
    labels = torch.arange(12.0).view(1, 1, 3, 4)
    flip = torch.tensor([[[-1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]])
    got, inside = replay_on_features(
        labels, flip, view=(3, 4), other=(3, 4), size=(3, 4), mode="nearest"
    )
    assert inside.all()
    assert torch.equal(got, labels.flip(-1))
    features = torch.randn(1, 2, 5, 5, requires_grad=True)
    shift = torch.tensor([[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]])
    got, _ = replay_on_features(features, shift, view=(5, 5), other=(5, 5), size=(5, 5))
    got.sum().backward()
    assert torch.equal(features.grad[..., :2], torch.zeros(1, 2, 5, 2))
    torch.testing.assert_close(features.grad[..., 2:], torch.ones(1, 2, 5, 3))

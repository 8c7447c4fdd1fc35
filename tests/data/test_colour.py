import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.colour import (
    COLOUR_PRESETS,
    SIMCLR,
    STRONG,
    WEAK,
    ColourConfig,
    ColourParams,
    apply_colour,
    draw_colour,
)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
    picture = cv2.resize(small, (96, 72), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(picture + rng.integers(-6, 7, picture.shape), 0, 255).astype(np.uint8)


def by_torchvision(image, function, *args):
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return function(tensor, *args).permute(1, 2, 0).numpy()


def distance(a, b):
    difference = np.abs(a.astype(int) - b.astype(int))
    return difference.max(), difference.mean()


@pytest.mark.parametrize("amount", [0.5, 0.83, 1.0, 1.5])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_agree_with_torchvision(image, name, amount):
    ours = apply_colour(image, ColourParams(jitter=((name, amount),)))
    theirs = by_torchvision(image, getattr(TF, f"adjust_{name}"), amount)
    most, mean = distance(ours, theirs)
    assert most <= 2  # torchvision truncates where we round; grey is rounded on the way
    assert mean <= 0.8


@pytest.mark.parametrize("shift", [-0.25, -0.1, 0.0, 0.07, 0.25, 0.5])
def test_hue_agrees_with_torchvision(image, shift):
    ours = apply_colour(image, ColourParams(jitter=(("hue", shift),)))
    theirs = by_torchvision(image, TF.adjust_hue, shift)
    most, mean = distance(ours, theirs)
    assert most <= 8  # hue and saturation pass through 8 bits
    assert mean <= 1.5


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.7, 2.0])
def test_blur_agrees_with_torchvision(image, sigma):
    side = 2 * int(np.ceil(3 * sigma)) + 1
    ours = apply_colour(image, ColourParams(blur_sigma=sigma))
    theirs = by_torchvision(image, TF.gaussian_blur, [side, side], [sigma, sigma])
    assert distance(ours, theirs)[0] <= 2


def test_greyscale_agrees_with_torchvision_and_shift_adds(image):
    grey = apply_colour(image, ColourParams(greyscale=True))
    theirs = by_torchvision(image, TF.rgb_to_grayscale, 3)
    assert distance(grey, theirs)[0] <= 1
    shifted = apply_colour(image, ColourParams(shift=-10.0))
    np.testing.assert_array_equal(shifted, np.clip(image.astype(int) - 10, 0, 255))


def test_operations_run_in_the_drawn_order_and_leave_the_input(image):
    before = image.copy()
    one = apply_colour(image, ColourParams(jitter=(("brightness", 1.5), ("contrast", 0.5))))
    other = apply_colour(image, ColourParams(jitter=(("contrast", 0.5), ("brightness", 1.5))))
    by_hand = apply_colour(
        apply_colour(image, ColourParams(jitter=(("brightness", 1.5),))),
        ColourParams(jitter=(("contrast", 0.5),)),
    )
    np.testing.assert_array_equal(one, by_hand)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(apply_colour(image, ColourParams()), image)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_tiny_images_pass(size):
    image = np.full((*size, 3), 77, np.uint8)
    for seed in range(30):
        params = draw_colour(SIMCLR, np.random.default_rng(seed))
        out = apply_colour(image, params)
        assert out.shape == image.shape
        assert out.dtype == np.uint8


def test_draws_repeat_and_follow_their_ranges(image):
    first, again = (draw_colour(STRONG, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    np.testing.assert_array_equal(apply_colour(image, first), apply_colour(image, again))
    rng = np.random.default_rng(0)
    draws = [draw_colour(STRONG, rng) for _ in range(4000)]
    assert abs(np.mean([bool(d.jitter) for d in draws]) - 0.8) < 0.03
    assert abs(np.mean([d.greyscale for d in draws]) - 0.2) < 0.03
    sigmas = np.array([d.blur_sigma for d in draws if d.blur_sigma is not None])
    assert abs(len(sigmas) / 4000 - 0.5) < 0.03
    assert abs(sigmas.mean() - 1.05) < 0.05
    amounts = {name: [] for name in ("brightness", "contrast", "saturation", "hue")}
    orders = set()
    for draw in draws:
        orders.add(tuple(name for name, _ in draw.jitter))
        for name, amount in draw.jitter:
            amounts[name].append(amount)
    assert len(orders) == 25  # every order, and none
    for name, (low, high) in {"brightness": (0.5, 1.5), "hue": (-0.25, 0.25)}.items():
        assert low <= min(amounts[name]) < low + 0.02
        assert high - 0.02 < max(amounts[name]) <= high


def test_one_coin_each_when_asked():
    config = ColourConfig(0.3, 0.3, 0.3, 0.1, jitter_probability=0.8, jitter_each=True)
    rng = np.random.default_rng(0)
    counts = np.bincount([len(draw_colour(config, rng).jitter) for _ in range(4000)], minlength=5)
    assert abs(counts[4] / 4000 - 0.8**4) < 0.03
    assert counts[3] > 0


def test_nothing_is_drawn_from_an_empty_configuration():
    assert draw_colour(ColourConfig(), np.random.default_rng(0)) == ColourParams()
    assert set(COLOUR_PRESETS) == {"weak", "strong", "simclr"}
    shift = draw_colour(WEAK, np.random.default_rng(0)).shift
    assert 0 < abs(shift) <= 10


@pytest.mark.parametrize(
    "wrong",
    [{"hue": 0.6}, {"brightness": -0.1}, {"blur_probability": 2.0}, {"blur_sigma": (0.0, 1.0)}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ColourConfig(**wrong)

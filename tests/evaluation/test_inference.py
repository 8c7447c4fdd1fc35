import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch.nn import functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation import InferenceConfig, predict_labels, predict_probabilities
from pixelcontrast.evaluation.inference import window_starts

CONFIGS = [
    InferenceConfig(),
    InferenceConfig(flip=True),
    InferenceConfig(scales=(0.5,)),
    InferenceConfig(scales=(0.5, 1.0, 1.75), flip=True, align_corners=True),
    InferenceConfig(mode="slide", crop=(16, 24)),
    InferenceConfig(mode="slide", crop=(16, 24), stride=9, flip=True),
    InferenceConfig(mode="slide", crop=(16, 24), scales=(0.5, 1.0), flip=True),
]


def pixelwise(image):
    """Scores of each pixel from its own colour: no context, so windows cannot change them."""
    colour = image.float() / 255
    return torch.cat([colour, colour.flip(1) ** 2, 1 - colour.mean(1, keepdim=True)], 1) * 5


def strided(image):
    """A network of stride 4 with context, deliberately not mirror symmetric."""
    scores = F.avg_pool2d(pixelwise(image).roll(1, -1), 4, ceil_mode=True)
    features = scores.new_zeros(1)
    return SegOutput(logits=scores, features=features)


def picture(height, width, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, 256, (batch, 3, 5, 7), generator=generator).float()
    return F.interpolate(small, (height, width), mode="bilinear").round().to(torch.uint8)


def slow_probabilities(model, image, config):
    """The definition: full-size maps, one list, one mean."""
    size = image.shape[-2:]
    maps = []
    for scale in config.scales:
        scaled = (max(1, round(scale * size[0])), max(1, round(scale * size[1])))
        view = F.interpolate(image.float(), scaled, mode="bilinear")
        for flip in (False, True) if config.flip else (False,):
            shown = view.flip(-1) if flip else view
            if config.mode == "whole":
                full = upsampled(model(shown), size, config).softmax(1)
            else:
                full = slow_slide(model, shown, config)
            full = full.flip(-1) if flip else full
            maps.append(F.interpolate(full, size, mode="bilinear"))
    return torch.stack(maps).mean(0)


def slow_slide(model, view, config):
    height, width = view.shape[-2:]
    crop = (min(config.crop[0], height), min(config.crop[1], width))
    total, count = 0.0, torch.zeros(height, width)
    for top in window_starts(height, crop[0], config.stride):
        for left in window_starts(width, crop[1], config.stride):
            box = (..., slice(top, top + crop[0]), slice(left, left + crop[1]))
            piece = upsampled(model(view[box]), crop, config).softmax(1)
            pad = (left, width - left - crop[1], top, height - top - crop[0])
            total = total + F.pad(piece, pad)
            count[box] += 1
    return total / count


def upsampled(output, size, config):
    logits = output.logits if isinstance(output, SegOutput) else output
    return F.interpolate(logits, size, mode="bilinear", align_corners=config.align_corners)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("model", [pixelwise, strided])
@pytest.mark.parametrize("size", [(37, 61), (16, 24), (5, 70)])
def test_equals_the_definition(config, model, size, monkeypatch):
    monkeypatch.setattr("pixelcontrast.evaluation.tiles.CPU_TILE_BYTES", 20_000)
    image = picture(*size)
    found = predict_probabilities(model, image, config)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, slow_probabilities(model, image, config), rtol=0, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), config=st.sampled_from(CONFIGS))
def test_any_size_in_same_size_out(height, width, config):
    image = picture(height, width, batch=1)
    probabilities = predict_probabilities(strided, image, config)
    assert probabilities.shape == (1, 7, height, width)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, height, width))
    labels, confidence = predict_labels(strided, image, config)
    assert labels.shape == confidence.shape == (1, height, width)


@pytest.mark.parametrize("config", CONFIGS)
def test_labels_and_confidence_are_those_of_the_probabilities(config):
    image = picture(41, 53)
    probabilities = predict_probabilities(strided, image, config)
    labels, confidence = predict_labels(strided, image, config)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels.long(), probabilities.argmax(1))
    torch.testing.assert_close(confidence, probabilities.amax(1), rtol=0, atol=1e-6)


def test_windows_do_not_change_a_network_without_context():
    image = picture(50, 90)
    whole = predict_probabilities(pixelwise, image)
    slide = predict_probabilities(pixelwise, image, InferenceConfig(mode="slide", crop=(21, 33)))
    torch.testing.assert_close(whole, slide, rtol=0, atol=1e-6)


def test_a_crop_larger_than_the_image_is_the_whole_image():
    image = picture(20, 30)
    config = InferenceConfig(mode="slide", crop=(100, 100))
    expected = predict_probabilities(strided, image)
    torch.testing.assert_close(predict_probabilities(strided, image, config), expected)


def test_an_unscaled_image_is_handed_over_as_bytes():
    seen = []

    def model(image):
        seen.append(image.dtype)
        return pixelwise(image)

    predict_labels(model, picture(8, 8))
    assert seen == [torch.uint8]


def test_half_precision_scores_give_float32_probabilities():
    def model(image):
        return pixelwise(image).bfloat16()

    probabilities = predict_probabilities(model, picture(9, 9))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 9, 9))


def test_no_gradient_is_kept():
    weight = torch.ones(1, requires_grad=True)
    probabilities = predict_probabilities(lambda image: pixelwise(image) * weight, picture(4, 4))
    assert not probabilities.requires_grad


@settings(max_examples=100, deadline=None)
@given(
    length=st.integers(1, 300),
    window=st.integers(1, 300),
    stride=st.one_of(st.floats(0.01, 1), st.integers(2, 400)),
)
def test_windows_cover_the_line(length, window, stride):
    window = min(window, length)
    starts = window_starts(length, window, stride)
    assert starts[0] == 0
    assert starts[-1] == length - window
    covered = {i for start in starts for i in range(start, start + window)}
    assert covered == set(range(length))
    assert starts == sorted(set(starts))


def test_window_steps():
    assert window_starts(2048, 769, 2 / 3) == [0, 513, 1026, 1279]
    assert window_starts(1024, 769, 513) == [0, 255]
    assert window_starts(10, 10, 0.5) == [0]
    assert window_starts(11, 4, 100) == [0, 4, 7]  # never a gap


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "tiles"},
        {"mode": "slide"},
        {"mode": "slide", "crop": (0, 5)},
        {"stride": 0},
        {"stride": float("nan")},
        {"scales": ()},
        {"scales": (1.0, -1.0)},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        InferenceConfig(**options)


def test_configuration_is_parsed_from_plain_values():
    config = TypeAdapter(InferenceConfig).validate_python(
        {"mode": "slide", "crop": [513, 513], "stride": 342, "scales": [0.5, 1], "flip": True}
    )
    assert config.crop == (513, 513)
    assert config.scales == (0.5, 1.0)


def test_an_empty_image_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        predict_probabilities(lambda image: torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 0, 5))

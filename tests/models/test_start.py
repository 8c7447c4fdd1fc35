import pytest
import torch

from pixelcontrast.core.errors import CheckpointError, ConfigError
from pixelcontrast.models import ModelConfig, build_segmentor, save_model, start_from

NAMES = ("sky", "road", "car")


def network(seed, classes=3, **options):
    torch.manual_seed(seed)
    config = {"encoder": "test_resnet", "decoder_channels": 16, "pretrained": False, **options}
    return build_segmentor(ModelConfig(**config), classes)


def differing(segmentor, before):
    """Top-level parts whose weights changed."""
    return {k.split(".")[0] for k, v in segmentor.state_dict().items() if not v.equal(before[k])}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    source = network(0)
    source.mean.add_(1.0)
    save_model(source, path, {"classes": NAMES, "classifies": True})
    return path


def start(file, names=NAMES, **options):
    target = network(1, len(names), **options)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    text = start_from(target, file, names)
    return differing(target, before), text


def test_all_parts_and_the_normalisation_are_taken_for_the_same_classes(file):
    parts, text = start(file)
    assert parts == {"encoder", "decoder", "classifier", "mean"}
    assert "not loaded" not in text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("sky", "road"), "there 3 classes, here 2"),
        (("sky", "car", "road"), "other names"),
    ],
)
def test_other_classes_get_a_new_classifier(file, names, reason):
    parts, text = start(file, names)
    assert parts == {"encoder", "decoder", "mean"}
    assert reason in text


def test_a_classifier_that_was_not_trained_is_left(tmp_path):
    path = tmp_path / "pretrained.safetensors"
    save_model(network(0), path, {"classes": NAMES, "classifies": False})
    parts, text = start(path)
    assert parts == {"encoder", "decoder"}
    assert "not trained" in text


def test_another_kind_of_decoder_is_left_and_said(file):
    parts, text = start(file, decoder="fpn")
    assert parts == {"encoder", "mean"}
    assert "there deeplabv3plus, here fpn" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "test_vit"}, ["the encoder", "missing", "model.encoder=test_resnet"]),
        ({"decoder_channels": 24}, ["the decoder", "of another shape", "decoder_channels=16"]),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_a_list(file, options, words):
    with pytest.raises(CheckpointError) as caught:
        start(file, **options)
    for word in words:
        assert word in str(caught.value)


def test_the_output_stride_may_differ(file):
    assert "decoder" in start(file, output_stride=32)[0]


def test_two_sources_of_weights_contradict_each_other(tmp_path):
    with pytest.raises(ConfigError, match="both name"):
        ModelConfig(init=tmp_path, weights_file=tmp_path)

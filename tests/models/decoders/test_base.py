import pytest
import torch
from tests.models.tester import build, images

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import DECODERS, save_model, start_from
from pixelcontrast.models.decoders import ClassHead

OWN = ("maskformer", "ocrnet", "segmenter")
WIDTHS = {"decoder_channels": 64}


def test_which_decoders_have_a_classifier_of_their_own():
    found = {}
    for name, kind in DECODERS.items():
        strides = (16,) * 4 if name == "dpt" else (4, 8, 16, 32)
        with torch.device("meta"):
            head = kind((64,) * 4, strides).build_classifier(3, 0.1)
        found[name] = isinstance(head, ClassHead)
    assert {name for name, own in found.items() if own} == set(OWN)


@pytest.mark.parametrize("decoder", OWN)
def test_only_the_classifier_depends_on_the_classes(decoder):
    few, many = (build("test_resnet", decoder, classes=c, **WIDTHS) for c in (3, 7))
    other = dict(many.state_dict())
    differ = {k for k, v in few.state_dict().items() if v.shape != other[k].shape}
    assert differ
    assert all(key.startswith("classifier.") for key in differ)


@pytest.mark.parametrize("decoder", OWN)
def test_a_network_for_other_classes_is_a_beginning(decoder, tmp_path):
    source = build("test_resnet", decoder, classes=3, **WIDTHS)
    save_model(source, tmp_path / "m.safetensors", {"classes": ["a", "b", "c"]})
    network = build("test_resnet", decoder, classes=2, seed=1, **WIDTHS)
    said = start_from(network, tmp_path / "m.safetensors", ["a", "b"])
    assert "not loaded: the classifier (there 3 classes, here 2)" in said
    theirs = source.decoder.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in network.decoder.state_dict().items())
    same = build("test_resnet", decoder, classes=3, seed=1, **WIDTHS).eval()
    start_from(same, tmp_path / "m.safetensors", ["a", "b", "c"])
    image = images(1, 40, 48)
    with torch.no_grad():
        assert torch.equal(same(image).logits, source.eval()(image).logits)


def test_unit_features_need_the_plain_classifier():
    with pytest.raises(ConfigError, match="a classifier of its own"):
        build("test_resnet", "ocrnet", unit_features=True)

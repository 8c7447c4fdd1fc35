import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.models.tester import build, images

from pixelcontrast.core.errors import CheckpointError, PixelContrastError
from pixelcontrast.models import EmbeddingConfig, load_model, load_weights, save_model

SMALL = ("mobilenetv3_small_050", "deeplabv3plus")
METADATA = {"classes": ["sky", "road"], "palette": [[1, 2, 3], [4, 5, 6]], "ignore_index": 255}


@pytest.fixture
def saved(tmp_path):
    model = build(*SMALL, auxiliary=True, embedding=EmbeddingConfig(), decoder_channels=32)
    save_model(model, tmp_path / "model.safetensors", METADATA)
    return model, tmp_path / "model.safetensors"


def test_header_can_be_read_by_other_tools(saved):
    path = saved[1]
    with safe_open(path, framework="pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
        names = set(file.keys())
    assert METADATA.items() <= header.items()
    assert header["model"]["encoder"] == SMALL[0]
    assert header["model"]["decoder_channels"] == 32
    assert header["num_classes"] == 5
    assert header["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert not any(name.startswith(("embedding", "auxiliary")) for name in names)


def test_loading_needs_no_download(saved):
    model, path = saved
    model.config = replace(model.config, pretrained=True)  # as a user's run has it
    save_model(model, path, METADATA)
    loaded, metadata = load_model(path)
    assert loaded.config.pretrained is False
    assert loaded.auxiliary_head is None
    assert metadata["palette"] == METADATA["palette"]
    image = images(1, 40, 50)
    assert torch.equal(loaded(image).logits, model.eval()(image).logits)


def test_channels_last_weights_can_be_saved(saved):
    model, path = saved
    save_model(model.to(memory_format=torch.channels_last), path, METADATA)
    image = images(1, 40, 50)
    expected = model.eval()(image).logits
    torch.testing.assert_close(load_model(path)[0](image).logits, expected, rtol=1e-4, atol=1e-4)


def test_weights_fill_a_network_with_its_own_heads(saved):
    model, path = saved
    other = build(*SMALL, seed=1, embedding=EmbeddingConfig(), decoder_channels=32)
    head = [p.clone() for p in other.embedding_head.parameters()]
    load_weights(other, path)
    assert torch.equal(other.classifier[1].weight, model.classifier[1].weight)
    assert all(
        torch.equal(a, b) for a, b in zip(head, other.embedding_head.parameters(), strict=True)
    )


def test_other_class_count_names_both(saved):
    other = build(*SMALL, classes=7, decoder_channels=32)
    with pytest.raises(CheckpointError, match="for 5 classes, the network has 7"):
        load_weights(other, saved[1])


@pytest.mark.parametrize(
    ("encoder", "decoder", "width"),
    [("resnet18", "deeplabv3plus", 32), (SMALL[0], "fpn", 32), (SMALL[0], SMALL[1], 64)],
)
def test_other_architecture(saved, encoder, decoder, width):
    other = build(encoder, decoder, decoder_channels=width)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="another network"):
        load_weights(other, saved[1])
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("length", [0, 5, 300, 50_000])
def test_truncated_file(saved, length):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(path)


@pytest.mark.parametrize("header", [None, {"format": "pt"}, {"format": '"pixelcontrast-1"'}])
def test_foreign_file(tmp_path, header):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", header)
    with pytest.raises(CheckpointError, match="not a pixelcontrast model"):
        load_model(tmp_path / "x.safetensors")


def test_model_that_this_version_cannot_build(saved):
    model, path = saved
    model.config = replace(model.config, decoder="of_the_future")
    save_model(model, path, METADATA)
    with pytest.raises(CheckpointError, match="of_the_future"):
        load_model(path)


def test_unwritable_place_keeps_the_old_file(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(PixelContrastError, match="No space left"):
        save_model(model, path, METADATA)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_reserved_metadata_is_refused(saved):
    model, path = saved
    with pytest.raises(ValueError, match="num_classes"):
        save_model(model, path, {"num_classes": 3})

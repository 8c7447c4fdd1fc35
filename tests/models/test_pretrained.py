import pytest
import timm
import torch
from safetensors.torch import save_file

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.models import Encoder

NAME = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def published():
    """A classification network in the form in which weights are published."""
    torch.manual_seed(3)
    return timm.create_model(NAME, pretrained=False).state_dict()


def test_safetensors_and_pth_arrive(published, tmp_path):
    save_file(published, tmp_path / "w.safetensors")
    torch.save({"state_dict": published}, tmp_path / "w.pth")
    for file in ("w.safetensors", "w.pth"):
        state = Encoder(NAME, weights_file=tmp_path / file).net.state_dict()
        assert all(torch.equal(value, published[key]) for key, value in state.items())


def test_transformer_weights_pass_timms_renaming(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    net = Encoder("vit_tiny_patch16_224", weights_file=tmp_path / "vit.safetensors").net
    assert torch.equal(net.model.blocks[5].mlp.fc1.weight, model.blocks[5].mlp.fc1.weight)


def test_a_classifier_that_is_not_needed_is_no_news(published, tmp_path, caplog):
    save_file(published, tmp_path / "w.safetensors")
    Encoder(NAME, weights_file=tmp_path / "w.safetensors")
    assert "classifier.weight" in published
    assert not caplog.records


def test_global_random_state_is_left_alone(published, tmp_path):
    save_file(published, tmp_path / "w.safetensors")
    before = torch.random.get_rng_state()
    Encoder(NAME, weights_file=tmp_path / "w.safetensors")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        Encoder(NAME, weights_file=tmp_path / "none.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_truncated_file(published, tmp_path, suffix):
    whole = tmp_path / f"w.{suffix}"
    save_file(published, whole) if suffix == "safetensors" else torch.save(published, whole)
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="does not hold weights"):
        Encoder(NAME, weights_file=whole)


def test_file_that_runs_code_is_refused(tmp_path):
    torch.save({"state_dict": print}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not hold weights"):
        Encoder(NAME, weights_file=tmp_path / "w.pth")


def test_weights_of_another_width(tmp_path):
    other = timm.create_model("mobilenetv3_small_075", pretrained=False)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="size mismatch"):
        Encoder(NAME, weights_file=tmp_path / "w.safetensors")


def test_weights_of_another_family(published, tmp_path):
    renamed = {f"student.{key}": value for key, value in published.items()}
    save_file(renamed, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights"):
        Encoder(NAME, weights_file=tmp_path / "w.safetensors")


def test_one_missing_weight_is_noticed(published, tmp_path):
    state = {k: v for k, v in published.items() if k != "blocks.3.0.conv_pw.weight"}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 .*blocks.3.0.conv_pw.weight"):
        Encoder(NAME, weights_file=tmp_path / "w.safetensors")

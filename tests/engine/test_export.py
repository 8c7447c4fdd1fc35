import pytest
import torch
from tests.models.tester import build

from pixelcontrast.core.errors import TrainingError
from pixelcontrast.engine.export import export
from pixelcontrast.models import load_model, save_model, upsample_logits


@pytest.fixture
def model(tmp_path):
    """A network whose image is padded and whose stages are cut."""
    segmentor = build("test_vit", "linear").eval()
    save_model(segmentor, tmp_path / "model.safetensors", {"classes": list("abcde")})
    return tmp_path / "model.safetensors"


def test_a_program_for_any_size_is_right_at_odd_ones(model):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    written = export(model, "onnx", size=(96, 64), dynamic=True)
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    segmentor = load_model(model)[0]
    for size in ((97, 161), (130, 65)):
        image = torch.rand(1, 3, *size) * 255
        found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
        with torch.no_grad():
            expected = upsample_logits(segmentor(image).logits, size)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_a_program_is_compared_with_the_network_as_it_was_trained(model, monkeypatch):
    from pixelcontrast.models import fast

    merge = fast._merge

    def wrong(convolution, norm):
        merge(convolution, norm)
        convolution.bias.data += 1

    segmentor = build("test_resnet", "fpn", decoder_channels=8).eval()
    save_model(segmentor, model, {"classes": list("abcde")})
    export(model, "pt2", size=(64, 96))
    monkeypatch.setattr(fast, "_merge", wrong)
    with pytest.raises(TrainingError, match="differs from the network"):
        export(model, "pt2", size=(64, 96))
    assert not model.with_suffix(".pt2").exists()

import re

import pytest
import torch

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.models import Encoder
from pixelcontrast.models.mit import _SIZES, MixTransformer, _published_names

COUNTS = {
    "mit_b0": 3_319_392, "mit_b1": 13_151_424, "mit_b2": 24_196_288,
    "mit_b3": 44_072_128, "mit_b4": 60_842_688, "mit_b5": 81_443_008,
}  # fmt: skip
"""Parameters of the published encoders; table 6 of 2105.15203 prints 3.4, 13.1 ... 81.4 M."""


def randomised(model):
    """Every parameter random, so that none is left out of a comparison."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("name", ["mit_b0", "mit_b1", "mit_b2"])
def test_parameters_are_the_published_ones(name):
    with torch.device("meta"):
        model = MixTransformer(*_SIZES[name])
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("size", [(65, 97), (128, 64)])
def test_stages_equal_the_official_code(size):
    mix = pytest.importorskip("segmentation_models_pytorch.encoders.mix_transformer")
    widths, depths = _SIZES["mit_b0"]
    theirs = randomised(
        mix.MixVisionTransformerEncoder(
            out_channels=(3, 0, *widths), patch_size=4, embed_dims=widths, num_heads=(1, 2, 5, 8),
            mlp_ratios=(4, 4, 4, 4), qkv_bias=True, depths=depths, sr_ratios=(8, 4, 2, 1),
            norm_layer=lambda width: mix.LayerNorm(width, eps=1e-6),
        )
    )  # fmt: skip
    ours = MixTransformer(widths, depths).eval()
    ours.load_state_dict(_published_names(theirs.state_dict(), ours))
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        for mine, stage in zip(ours.forward_intermediates(image), theirs(image)[-4:], strict=True):
            torch.testing.assert_close(mine, stage, rtol=1e-4, atol=1e-4)


def old_names(state):
    """The names `transformers` 4 gives the weights, with keys and values apart."""
    named = {}
    for key, value in state.items():
        key = re.sub(r"^(patch_embed|block|norm)(\d)", lambda m: f"{m[1]}{int(m[2]) - 1}", key)
        for pattern, new in (
            (r"^patch_embed(\d)\.norm", r"patch_embeddings.\1.layer_norm"),
            (r"^patch_embed(\d)", r"patch_embeddings.\1"),
            (r"^norm(\d)", r"layer_norm.\1"),
            (r"^block(\d)", r"block.\1"),
            (r"\.norm(\d)\.", r".layer_norm_\1."),
            (r"\.attn\.q\.", ".attention.self.query."),
            (r"\.attn\.(sr|norm)\.", lambda m: f".attention.self.{HF_ATTENTION[m[1]]}."),
            (r"\.attn\.proj\.", ".attention.output.dense."),
            (r"\.mlp\.fc(\d)\.", r".mlp.dense\1."),
        ):
            key = re.sub(pattern, new, key)
        if ".attn.kv." in key:
            for part, half in zip(("key", "value"), value.chunk(2), strict=True):
                part = key.replace(".attn.kv.", f".attention.self.{part}.")
                named[f"segformer.encoder.{part}"] = half
        else:
            named[f"segformer.encoder.{key}"] = value
    return {**named, "classifier.weight": torch.zeros(1000, 256)}


HF_ATTENTION = {"sr": "sr", "norm": "layer_norm"}


def test_weights_under_the_names_of_transformers_are_translated():
    model = randomised(MixTransformer((8, 16, 20, 32), (1, 2, 1, 1)))
    translated = _published_names(old_names(model.state_dict()), model)
    assert translated.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(translated[key], value), key


def test_a_file_of_weights_is_loaded_and_another_refused(tmp_path):
    model = randomised(MixTransformer(*_SIZES["mit_b0"]))
    torch.save({**model.state_dict(), "head.weight": torch.zeros(1)}, tmp_path / "mit_b0.pth")
    encoder = Encoder("mit_b0", weights_file=tmp_path / "mit_b0.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(encoder.net.model.state_dict()[key], value), key
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match="mit_b0"):
        Encoder("mit_b0", weights_file=tmp_path / "resnet.pth")


def test_its_licence_is_told_before_a_download(monkeypatch):
    import timm

    def offline(*_args, **_kwargs):
        raise OSError("offline")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", offline)
    with pytest.warns(UserWarning, match="non-commercial"), pytest.raises(CheckpointError):
        Encoder("mit_b0", pretrained=True)


def test_drop_path_grows_with_the_depth():
    model = MixTransformer((8, 16, 20, 32), (1, 2, 1, 1), drop_path_rate=0.2)
    rates = [
        getattr(block.drop_path, "drop_prob", 0.0)
        for stage in range(1, 5)
        for block in getattr(model, f"block{stage}")
    ]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])

import pytest
import torch
from tests.models.same_weights import pyramid, randomise, take_weights

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import ModelConfig, build_segmentor
from pixelcontrast.models.decoders import Decoded, MaskFormer
from pixelcontrast.models.decoders.maskformer import semantic_logits, sine_positions

WIDTHS = (8, 16, 24, 32)
STRIDES = (4, 8, 16, 32)
CLASSES = 5


def transformers_parts():
    transformers = pytest.importorskip("transformers", minversion="5.23")
    from transformers.models.maskformer import modeling_maskformer as theirs

    config = transformers.MaskFormerConfig(
        fpn_feature_size=64,
        mask_feature_size=64,
        decoder_config=transformers.DetrConfig(
            d_model=64, decoder_layers=6, decoder_ffn_dim=512, num_queries=100
        ),
    )
    pixel = theirs.MaskFormerPixelDecoder(
        in_features=32, feature_size=64, mask_feature_size=64, lateral_widths=list(WIDTHS[:-1])
    )
    return torch.nn.ModuleDict(
        {
            "pixel": pixel,
            "transformer": theirs.MaskFormerTransformerModule(32, config),
            "classes": torch.nn.Linear(64, CLASSES + 1),
            "masks": theirs.MaskformerMLPPredictionHead(64, 64, 64),
        }
    )


PIXEL = {
    "stem.": "fpn.stem.",
    **{f"laterals.{k}.": f"fpn.layers.{2 - k}.proj." for k in range(3)},
    **{f"smooths.{k}.": f"fpn.layers.{2 - k}.block." for k in range(3)},
    "embed.": "mask_projection.",
}
ATTENTION = {"query.": "q_proj.", "key.": "k_proj.", "value.": "v_proj.", "out.": "o_proj."}
LAYER = {
    **{f"among.{a}": f"self_attn.{b}" for a, b in ATTENTION.items()},
    **{f"across.{a}": f"encoder_attn.{b}" for a, b in ATTENTION.items()},
    "among_norm.": "self_attn_layer_norm.",
    "across_norm.": "encoder_attn_layer_norm.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
    "mlp_norm.": "final_layer_norm.",
}
CLASSIFIER = {
    "project.": "transformer.input_projection.",
    "queries": "transformer.queries_embedder.weight",
    **{
        f"layers.{k}.{a}": f"transformer.decoder.layers.{k}.{b}"
        for k in range(6)
        for a, b in LAYER.items()
    },
    "norm.": "transformer.decoder.layernorm.",
    "class_map.": "classes.",
    **{f"mask_map.{2 * k}.": f"masks.{k}.0." for k in range(3)},
}


def test_equals_transformers_with_the_same_weights():
    theirs = randomise(transformers_parts())
    decoder = MaskFormer(WIDTHS, STRIDES, width=64).eval()
    classifier = decoder.build_classifier(CLASSES, 0.1).eval()
    stages = pyramid(WIDTHS)
    with torch.no_grad():
        embeddings = theirs["pixel"](stages).last_hidden_state
        queries = theirs["transformer"](stages[-1]).last_hidden_state
        masks = torch.einsum("bqd,bdhw->bqhw", theirs["masks"](queries), embeddings)
        chance = theirs["classes"](queries).softmax(2)[..., :-1]
        expected = torch.einsum("bqc,bqhw->bchw", chance, masks.sigmoid())
        take_weights(decoder, theirs.pop("pixel"), PIXEL)
        take_weights(classifier, theirs, CLASSIFIER)
        decoded = decoder(stages)
        found = classifier(decoded).logits
    torch.testing.assert_close(decoded.features, embeddings, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.exp(), expected + 1e-6, rtol=1e-4, atol=1e-4)


def test_every_layer_is_supervised_in_training_and_the_last_one_scores():
    decoder = MaskFormer(WIDTHS, STRIDES, width=64)
    classifier = decoder.build_classifier(CLASSES, 0.0)
    decoded = decoder(pyramid())
    scores = classifier(decoded)
    assert [c.shape for c in scores.query_classes] == [(2, 100, CLASSES + 1)] * 6
    assert [m.shape for m in scores.query_masks] == [(2, 100, 17, 23)] * 6
    last = semantic_logits(scores.query_classes[-1], scores.query_masks[-1])
    assert torch.equal(scores.logits, last)
    quiet = classifier.eval()(decoded)
    assert quiet.query_masks == quiet.query_classes == ()
    torch.testing.assert_close(quiet.logits, scores.logits)


def test_logits_are_finite_float32_whatever_the_masks():
    classes = torch.full((1, 4, 3), -1e4)
    classes[..., -1] = 1e4
    with torch.autocast("cpu", torch.bfloat16):
        logits = semantic_logits(classes, torch.full((1, 4, 2, 2), -1e4))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


def test_positions_tell_places_apart():
    positions = sine_positions(torch.zeros(1, 32, 5, 7))
    assert positions.shape == (35, 32)
    distance = torch.cdist(positions, positions) + torch.eye(35)
    assert distance.min() > 0.1
    halves = positions.unflatten(0, (5, 7))
    assert torch.equal(halves[2, :, :16], halves[2, :1, :16].expand(7, -1))  # a row, one height


def test_the_width_must_fit_the_group_norms():
    with pytest.raises(ConfigError, match="multiple of 64"):
        MaskFormer(WIDTHS, STRIDES, width=48)


def test_published_size():
    # 2107.06278, table 1: 41 M parameters with ResNet-50 on the 150 classes of ADE20K.
    with torch.device("meta"):
        config = ModelConfig(encoder="resnet50", decoder="maskformer", pretrained=False)
        model = build_segmentor(config, 150)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(41, rel=0.01)


def test_a_query_without_a_mask_changes_nothing():
    classifier = MaskFormer(WIDTHS, STRIDES, width=64).build_classifier(2, 0.0).eval()
    decoded = Decoded(torch.randn(1, 64, 4, 4), context=torch.randn(1, 32, 2, 2))
    classes, masks = torch.randn(1, 3, 3), torch.randn(1, 3, 4, 4)
    silent = torch.tensor([[[0.0, 0.0, 100.0]]])
    more = semantic_logits(torch.cat([classes, silent], 1), torch.cat([masks, masks[:, :1]], 1))
    torch.testing.assert_close(more, semantic_logits(classes, masks))
    assert classifier(decoded).logits.shape == (1, 2, 4, 4)

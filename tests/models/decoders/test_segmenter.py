import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models.decoders import Decoded, Linear, Segmenter
from pixelcontrast.models.decoders.segmenter import MaskTransformer

VIT = {"channels": (16,) * 4, "strides": (16,) * 4}


def slow_scores(transformer, features):
    """The released decoder, token by token."""
    rows, columns = features.shape[2:]
    maps = []
    for image in features:
        tokens = torch.stack(
            [transformer.project(image[:, i, j]) for i in range(rows) for j in range(columns)]
        )
        tokens = torch.cat([tokens, transformer.classes[0]])
        for layer in transformer.layers:
            attention, heads = layer.attention, layer.attention.heads
            normed = layer.attention_norm(tokens)
            parts = []
            for q, k, v in zip(
                attention.query(normed).chunk(heads, 1),
                attention.key(normed).chunk(heads, 1),
                attention.value(normed).chunk(heads, 1),
                strict=True,
            ):
                parts.append((q @ k.T / q.shape[1] ** 0.5).softmax(1) @ v)
            tokens = tokens + attention.out(torch.cat(parts, 1))
            tokens = tokens + layer.mlp(tokens)
        tokens = transformer.norm(tokens)
        patches = tokens[: rows * columns] @ transformer.patch_map
        classes = tokens[rows * columns :] @ transformer.class_map
        cosine = torch.nn.functional.cosine_similarity(patches[:, None], classes[None], dim=2)
        maps.append(transformer.score_norm(cosine).T.reshape(-1, rows, columns))
    return torch.stack(maps)


@pytest.mark.parametrize("width", [None, 128])
def test_scores_equal_the_slow_form(width):
    decoder = Segmenter(**VIT, width=width)
    transformer = decoder.build_classifier(5, 0.1).double().eval()
    features = torch.randn(2, 16, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        found = transformer(Decoded(features)).logits
        torch.testing.assert_close(found, slow_scores(transformer, features))
    assert transformer.layers[0].attention.heads == (2 if width else 1)


def test_features_are_normalised_patches():
    for kind in (Linear, Segmenter):
        decoder = kind(**VIT)
        stage = 5 + 3 * torch.randn(1, 16, 2, 2)
        features = decoder([stage] * 4).features
        torch.testing.assert_close(features.mean(1), torch.zeros(1, 2, 2), atol=1e-5, rtol=0)
        torch.testing.assert_close(features.var(1, correction=0), torch.ones(1, 2, 2))


def test_a_linear_decoder_has_the_width_of_its_encoder():
    assert Linear(**VIT, width=16).channels == 16
    with pytest.raises(ConfigError, match="as wide as its encoder, 16"):
        Linear(**VIT, width=32)


def test_two_classes_can_be_learnt():
    torch.manual_seed(0)
    transformer = MaskTransformer(16, 16, 2, 0.0)
    features = torch.randn(4, 16, 4, 4)
    target = (features[:, 0] > 0).long()
    optimiser = torch.optim.Adam(transformer.parameters(), 0.01)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(transformer(Decoded(features)).logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    # The published norm of two scores is blind to their size.
    scores = torch.randn(3, 2)
    signs = torch.nn.functional.layer_norm(scores, (2,))
    torch.testing.assert_close(signs.abs(), torch.ones(3, 2), rtol=1e-3, atol=1e-3)


def test_cosines_are_computed_in_float32():
    transformer = MaskTransformer(16, 16, 4, 0.0).eval()
    decoded = Decoded(torch.randn(1, 16, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        logits = transformer(decoded).logits
    assert logits.dtype == torch.float32


def test_size_of_the_released_decoder():
    # Counted from its parameter list; the model zoo prints 7, 27, 106 and 334 M for whole networks
    # with ViT-Ti, S, B and L, where its own list gives 6.6, 25.9, 102.2 and 332.2 M.
    width, classes = 192, 150
    layer = 12 * width**2 + 13 * width
    released = 2 * layer + (width + 1) * width + 2 * width**2 + (classes + 2) * width + 2 * classes
    transformer = MaskTransformer(width, width, classes, 0.1)
    assert sum(p.numel() for p in transformer.parameters()) == released

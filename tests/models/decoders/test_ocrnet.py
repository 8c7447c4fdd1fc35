import pytest
import torch
from tests.models.same_weights import pyramid

from pixelcontrast.models.decoders import OCRNet
from pixelcontrast.models.decoders.ocrnet import region_means

PYRAMID = {"channels": (8, 16, 24, 32), "strides": (4, 8, 16, 32)}
DILATED = {"channels": (8, 16, 24, 32), "strides": (4, 8, 8, 8)}


def slow_scores(classifier, decoded):
    """Equations 1 to 5, pixel by pixel and class by class."""
    pixels = decoded.features.double()
    soft = classifier.regions(decoded.context.double())
    batch, width, rows, columns = pixels.shape
    classes = soft.shape[1]
    augmented = torch.zeros(batch, 2 * width, rows, columns, dtype=torch.float64)
    for b in range(batch):
        objects = []
        for k in range(classes):
            weight = soft[b, k].exp() / soft[b, k].exp().sum()
            objects.append((weight * pixels[b]).sum((1, 2)))
        objects = torch.stack(objects)[:, :, None, None]
        keys, values = classifier.key(objects), classifier.value(objects)
        for i in range(rows):
            for j in range(columns):
                pixel = pixels[b : b + 1, :, i : i + 1, j : j + 1]
                query = classifier.query(pixel)
                relation = torch.tensor([float((query[0] * key).sum()) for key in keys])
                relation = (relation.double() / query.shape[1] ** 0.5).softmax(0)
                mixed = sum(r * v for r, v in zip(relation, values, strict=True))
                context = classifier.context(mixed[None])
                augmented[b, :, i, j] = torch.cat([context, pixel], dim=1).flatten()
    return classifier.classify(classifier.augment(augmented))


@pytest.mark.parametrize("shape", [PYRAMID, DILATED])
def test_scores_equal_the_slow_form(shape):
    decoder = OCRNet(**shape, width=10).eval()
    classifier = decoder.build_classifier(3, 0.1).eval()
    stages = pyramid(size=(5, 4))
    if shape is DILATED:
        stages = [stages[0], *(torch.randn(2, s.shape[1], 3, 2) for s in stages[1:])]
    with torch.no_grad():
        decoded = decoder(stages)
        found = classifier(decoded)
        expected = slow_scores(classifier.double(), decoded)
    torch.testing.assert_close(found.logits.double(), expected, rtol=1e-4, atol=1e-4)
    assert found.auxiliary == ()


def test_regions_of_a_dilated_encoder_come_from_the_last_but_one_stage():
    decoder = OCRNet(**DILATED).eval()
    stages = [torch.randn(1, c, 4, 5) for c in DILATED["channels"]]
    decoded = decoder(stages)
    assert decoded.context is stages[2]
    assert decoded.taps["fusion"] is stages[3]
    assert OCRNet(**PYRAMID).eval()(pyramid()).context.shape[1] == sum(PYRAMID["channels"])


def test_soft_regions_are_supervised_in_training_and_reach_the_scores():
    decoder = OCRNet(**PYRAMID, width=8)
    classifier = decoder.build_classifier(3, 0.0)
    scores = classifier(decoder(pyramid()))
    assert [a.shape for a in scores.auxiliary] == [scores.logits.shape]
    scores.logits.square().sum().backward()
    assert all(p.grad.any() for p in classifier.regions.parameters() if p.ndim > 1)


def test_region_means_are_means():
    pixels = torch.ones(2, 4, 3, 3)
    scores = 1000 * torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(region_means(pixels, scores), torch.ones(2, 4, 5))


def test_published_sizes():
    # 1909.11065, table 5: 10.5 M parameters on 2048 channels. Its convolutions, without norms,
    # regions and classifier.
    with torch.device("meta"):
        decoder = OCRNet((256, 512, 1024, 2048), (4, 8, 8, 8))
        classifier = decoder.build_classifier(19, 0.1)
    modules = [decoder, *(m for n, m in classifier.named_children() if n[:3] not in ("reg", "cla"))]
    found = sum(p.numel() for m in modules for p in m.parameters() if p.ndim > 1)
    assert found / 1e6 == pytest.approx(10.5, rel=0.015)

import torch
from tests.models.same_weights import take_weights
from tests.models.tester import build, images
from torchvision.models.segmentation import FCN_ResNet50_Weights, fcn_resnet50

from pixelcontrast.models.decoders import FCN

PARTS = {
    "encoder.net.": "backbone.",
    "decoder.mix.": "classifier.",
    "classifier.1.": "classifier.4.",
    "auxiliary_head.0.": "aux_classifier.",
    "auxiliary_head.1.1.": "aux_classifier.4.",
}


def test_equals_torchvision_with_the_same_weights_and_size():
    torch.manual_seed(0)
    theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True).eval()
    ours = build("resnet50", "fcn", auxiliary=True, classes=21).eval()
    assert ours.encoder.strides == (4, 8, 8, 8)
    published = FCN_ResNet50_Weights.DEFAULT.meta["num_params"]
    assert sum(p.numel() for p in ours.parameters()) == published
    image = images(1, 65, 90)
    expected_input = ours.normalise(image)
    normalisation = ours._buffers.pop("mean"), ours._buffers.pop("std")
    take_weights(ours, theirs, PARTS)
    ours.mean, ours.std = normalisation
    with torch.no_grad():
        expected = theirs(expected_input)["out"]
        torch.testing.assert_close(ours.deploy()(image), expected, rtol=1e-4, atol=1e-4)


def test_a_quarter_of_the_width_unless_said_otherwise():
    assert FCN([8, 32], [4, 8]).channels == 8
    assert FCN([8, 32], [4, 8], width=5).channels == 5

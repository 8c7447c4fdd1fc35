import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.methods.base import LABELED
from pixelcontrast.methods.segmentation import SegmentationLoss, SegmentationLossConfig
from pixelcontrast.models import ModelConfig, build_segmentor
from tests.methods.tester import drawn_batch


def segmentor(decoder, classes):
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="test_resnet", decoder=decoder, decoder_channels=64, pretrained=False, dropout=0.0
    )
    return build_segmentor(config, classes)


@pytest.mark.parametrize("classes", [2, 7])
def test_masks_are_learnt_by_their_own_loss(classes):
    model = segmentor("maskformer", classes)
    loss = SegmentationLoss(SegmentationLossConfig(), classes, 255)
    batch = drawn_batch(LABELED, classes, batch=2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.0)
    values = []
    for _ in range(10):
        terms = loss(model(batch.image), batch.mask)
        assert terms.keys() == {"mask_class", "mask_focal", "mask_dice"}
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < 0.9 * values[0]
    assert loss(model.eval()(batch.image), batch.mask).keys() == {"ce"}


def test_hard_pixels_cannot_be_mined_among_masks():
    model = segmentor("maskformer", 3)
    loss = SegmentationLoss(SegmentationLossConfig(ohem_threshold=0.7), 3, 255)
    batch = drawn_batch(LABELED, 3, batch=1)
    with pytest.raises(ConfigError, match="trained by whole masks"):
        loss(model(batch.image), batch.mask)


def test_soft_regions_are_supervised_with_the_auxiliary_weight():
    model = segmentor("ocrnet", 3)
    batch = drawn_batch(LABELED, 3, batch=2)
    output = model(batch.image)
    terms = SegmentationLoss(SegmentationLossConfig(), 3, 255)(output, batch.mask)
    assert terms.keys() == {"ce", "auxiliary"}
    upsampled = torch.nn.functional.interpolate(output.auxiliary[0], (48, 64), mode="bilinear")
    expected = 0.4 * torch.nn.functional.cross_entropy(upsampled, batch.mask.long())
    torch.testing.assert_close(terms["auxiliary"], expected)

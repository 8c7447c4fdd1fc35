import torch
import torch.nn.functional as F

from pixelcontrast.core.types import SegOutput
from pixelcontrast.engine.clusters import MatchedNetwork, middle_square


class Fixed(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, image):
        return SegOutput(self.logits, self.logits)


def test_a_class_scores_as_high_as_its_best_cluster():
    logits = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    network = MatchedNetwork(Fixed(logits), (2, -1, 0, 2), 3)
    found = network(None).logits
    torch.testing.assert_close(found[:, 0], logits[:, 2])
    torch.testing.assert_close(found[:, 2], logits[:, [0, 3]].amax(1))
    assert (found[:, 1] < -1000).all()
    large = F.interpolate(found, (9, 9), mode="bilinear")
    assert large.isfinite().all()
    assert not (large.argmax(1) == 1).any()


def test_the_middle_square_of_image_and_mask():
    image = torch.arange(6.0).expand(1, 3, 4, 6)
    mask = torch.arange(6, dtype=torch.uint8).expand(1, 4, 6)
    pixels, labels = middle_square(image, mask, 4)
    assert labels[0, 0].tolist() == [1, 2, 3, 4]
    assert pixels[0, 0, 0].tolist() == [1, 2, 3, 4]
    pixels, labels = middle_square(image, mask, 8)
    assert pixels.shape == (1, 3, 8, 8)
    assert labels[0, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert labels.dtype == torch.uint8

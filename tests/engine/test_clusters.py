import pytest
import torch
import torch.nn.functional as F
from tests.methods.tester import cluster_network

from pixelcontrast.core.types import SegOutput
from pixelcontrast.data import build_eval_loader
from pixelcontrast.engine.clusters import MatchedNetwork, evaluate_clusters, middle_square
from pixelcontrast.engine.config import parse_config
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.evaluation import ConfusionMatrix, InferenceConfig, LinearProbe


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


@pytest.mark.parametrize("flip", [False, True])
def test_clusters_and_probe_share_a_pass_over_the_scored_images(tiny, flip):
    tiny["method"] = {"name": "picie"}
    tiny["eval"] = {"batch": 2}
    config = parse_config(tiny)
    sources = gather_sources(config.data)
    info, samples = sources.dataset.info, sources.val
    segmentor = cluster_network(info.num_classes).eval()
    seen = []
    handle = segmentor.register_forward_hook(lambda *_: seen.append(len(_[1][0])))
    inference = InferenceConfig(flip=flip)
    found, _ = evaluate_clusters(
        segmentor, samples, info, config, inference, torch.device("cpu"), labelled=sources.labeled
    )
    handle.remove()
    # Mirroring asks for a second pass, and features for one that is not mirrored.
    assert sum(seen) == len(sources.labeled) + len(samples) * (3 if flip else 1)

    def features(chosen):
        batches = build_eval_loader(chosen, info, batch_size=2, workers=0)
        with torch.no_grad():
            return [(segmentor(b.image).features, b.mask) for b in batches]

    probe = LinearProbe(16, info.num_classes)
    probe.fit(features(sources.labeled))
    expected = ConfusionMatrix(info.num_classes, info.ignore_index)
    for one, mask in features(samples):
        expected.update_from_logits(probe.logits(one).detach(), mask)
    assert torch.equal(found.probe.confusion, expected.scores().confusion)
    unlabelled, _ = evaluate_clusters(
        segmentor, samples, info, config, inference, torch.device("cpu")
    )
    assert unlabelled.probe is None
    assert torch.equal(unlabelled.hungarian.confusion, found.hungarian.confusion)

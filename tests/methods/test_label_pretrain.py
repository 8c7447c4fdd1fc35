from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.config import parse_config
from pixelcontrast.losses import draw_partners, released_pair_loss, within_image_loss
from pixelcontrast.losses.maps import subsample_labels
from pixelcontrast.methods.label_pretrain import LabelPretrain, compared_size
from pixelcontrast.methods.optim import OptimConfig, learning_rate_factor
from pixelcontrast.models import upsample_logits
from tests.methods.tester import SIZE, MethodTester, drawn_batch

HEAD = {"embedding": {"dim": 8, "layers": 3, "hidden": 16}}
RELEASED = {"pairs": "released", "denominator": "released"}


class TestLabelPretrain(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = HEAD

    def test_neither_classifier_nor_head_of_the_network_learns_for_nothing(self):
        method = self.build()
        before = method.segmentor.classifier[1].weight.clone()
        self.steps(method, self.batch(method), 2)
        torch.testing.assert_close(method.segmentor.classifier[1].weight, before, rtol=0, atol=0)

    def test_the_statistics_are_those_of_all_pairs_of_an_image_and_its_copy(self):
        method = self.build()
        generator = torch.Generator().manual_seed(0)
        image, copy = (
            F.normalize(torch.randn(2, 8, 3, 4, generator=generator), dim=1) for _ in "ab"
        )
        ids = torch.tensor([[0, 0, 1, -1] * 3, [2, 1, 1, 1] * 3]).view(2, 3, 4)
        found = method._statistics(image, copy, ids)
        same, other = [], []
        for a, b, y in zip(image.flatten(2).mT, copy.flatten(2).mT, ids.flatten(1), strict=True):
            for p in range(12):
                for q in range(12):
                    if y[p] >= 0 and y[q] >= 0:
                        (same if y[p] == y[q] else other).append((a[p] @ b[q]).item())
        expected = {"positive_similarity": same, "negative_similarity": other}
        for name, values in expected.items():
            assert found[name].item() == pytest.approx(sum(values) / len(values), abs=1e-5)
        assert found["anchors"] == 21
        assert found["anchor_classes"] == 3


class Within(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = {**HEAD, "variant": "within_image"}


class Bag(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = {**HEAD, "variant": "batch", "samples": 300}


class Symmetric(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = {**HEAD, "symmetric": True, "denominator": "released"}


class Released(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = {**HEAD, **RELEASED}


class ReleasedWithin(MethodTester):
    name = "label_pretrain"
    options: ClassVar[dict] = {**HEAD, **RELEASED, "variant": "within_image"}


VARIANTS = [Within, Bag, Symmetric, Released, ReleasedWithin]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_and_survives_unlabelled_batches(variant):
    variant().test_every_loss_falls(3)
    variant().test_an_all_ignored_batch_gives_zero_terms_and_finite_gradients()


@pytest.mark.slow
@pytest.mark.parametrize("variant", [Bag, Symmetric, Released])
def test_every_variant_is_the_same_on_two_processes(variant):
    variant().test_two_processes_equal_one()


@pytest.fixture
def views():
    """Unit maps of three images and their copies, and labels on their grid."""
    generator = torch.Generator().manual_seed(1)
    maps = F.normalize(torch.randn(2, 3, 8, 4, 5, generator=generator), dim=2)
    ids = torch.randint(-1, 3, (3, 4, 5), generator=generator)
    return maps[0], maps[1], ids


def test_the_losses_are_those_of_the_equations(views):
    image, copy, ids = views
    method = Within().build()
    found = method._paper(image, copy, ids)
    torch.testing.assert_close(found, within_image_loss(image, copy, ids, ignore_index=-1))
    cross = TestLabelPretrain().build()._paper(image, copy, ids)
    assert abs(cross - found) > 1e-3
    # alone in its batch, an image has no partner
    alone = [v[:1] for v in views]
    torch.testing.assert_close(
        TestLabelPretrain().build()._paper(*alone), method._paper(*alone), rtol=1e-5, atol=0
    )


def test_the_released_form_adds_both_views_or_pairs_permuted_images(views):
    image, copy, ids = views
    rows, copies, labels = image.flatten(2).mT, copy.flatten(2).mT, ids.flatten(1)
    expected = sum(
        released_pair_loss(own[i], labels[i], temperature=0.07)
        for own in (rows, copies)
        for i in range(3)
    )
    method = ReleasedWithin().build()
    torch.testing.assert_close(method._released(image, copy, ids), expected / 3)
    method = Released().build()
    order = torch.randperm(3, generator=method._host_random("partners")).tolist()
    pairs = [
        released_pair_loss(rows[i], labels[i], copies[k], labels[k], temperature=0.07)
        for i, k in enumerate(order)
    ]
    torch.testing.assert_close(method._released(image, copy, ids), sum(pairs) / 3)


def test_partners_follow_the_step_and_the_seed():
    method = TestLabelPretrain().build()
    seen = set()
    for step in range(20):
        method.batch_index = step
        partners = [draw_partners(6, method._host_random("partners")).tolist() for _ in "ab"]
        assert partners[0] == partners[1]
        seen.add(tuple(partners[0]))
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [
        ((129, 129), 65, (65, 65)),
        ((129, 129), None, (129, 129)),
        ((24, 32), 65, (24, 32)),
        ((65, 65), 65, (65, 65)),
        ((97, 129), 65, (49, 65)),
        ((1, 129), 65, (1, 65)),
    ],
)
def test_maps_are_cut_down_but_never_blown_up(size, longest, expected):
    assert compared_size(size, longest) == expected


def test_halving_keeps_every_second_pixel_exactly():
    features = torch.randn(1, 4, 129, 129, generator=torch.Generator().manual_seed(0))
    method = TestLabelPretrain().build()
    method.segmentor.embedding_head = torch.nn.Identity()
    torch.testing.assert_close(method._project(features), features[:, :, ::2, ::2], rtol=0, atol=0)
    labels = torch.arange(513 * 513).view(1, 513, 513)
    assert torch.equal(subsample_labels(labels, (65, 65)), labels[:, ::8, ::8])


def test_cosine_schedule_of_the_paper():
    config = OptimConfig(lr=0.1, schedule="cosine")
    rates = [0.1 * learning_rate_factor(s, 300_000, config) for s in (0, 75_000, 150_000, 300_000)]
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0], abs=1e-7)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"pairs": "released"}, "belong to its denominator"),
        ({**RELEASED, "variant": "batch"}, "no batch loss"),
        ({**RELEASED, "symmetric": True}, "symmetric by themselves"),
        ({"loss_size": 1}, "two pixels a side"),
    ],
)
def test_settings_that_contradict_each_other(options, hint):
    with pytest.raises(ConfigError, match=hint):
        parse_config({"method": {"name": "label_pretrain", **options}})


def test_the_head_reads_the_classifiers_input():
    config = parse_config({"method": {"name": "label_pretrain"}}).method
    head = LabelPretrain.embedding_head(config)
    assert (head.tap, head.layers, head.hidden, head.dim) == ("features", 3, 256, 256)
    config = parse_config({"method": {"name": "label_pretrain", "embedding": {"tap": "aspp"}}})
    with pytest.raises(ConfigError, match="cannot read another map"):
        LabelPretrain.embedding_head(config.method)


def test_pretraining_parts_the_classes():
    batch = drawn_batch(LabelPretrain.streams[0], 2, batch=8)
    batch = replace(batch, strong=(batch.image // 4 * 3,))
    tester = TestLabelPretrain()
    method = tester.build(2)
    similarity = []
    for _ in range(10):
        stats = method.losses({"labeled": batch}).stats
        similarity.append([stats[f"{kind}_similarity"].item() for kind in ("positive", "negative")])
        tester.steps(method, {"labeled": batch}, 4)
    same, other = zip(*similarity, strict=True)
    assert same[-1] > same[0]
    # In the first steps images and copies become alike, whatever the class; then classes part.
    assert other[-1] < max(other)
    assert same[-1] - other[-1] > 3 * (same[0] - other[0])


def striped_batch(stream, seed):
    """Eight images with a square of lying in a field of standing stripes, alike in mean colour."""
    drawn = drawn_batch(stream, 2, batch=8, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    height, width = SIZE
    phase = torch.randint(0, 6, (8, 1, 1), generator=generator)
    standing = (torch.arange(width).view(1, 1, -1) + phase) % 6 < 3
    lying = (torch.arange(height).view(1, -1, 1) + phase) % 6 < 3
    stripes = torch.where(drawn.mask == 1, lying, standing)[:, None].float()
    image = 100 + 50 * stripes + 25 * torch.randn(8, 3, height, width, generator=generator)
    image = image.clamp(0, 255).to(torch.uint8)
    return replace(drawn, image=image, strong=(image // 4 * 3,) * stream.strong_views)


class Scratch(MethodTester):
    name = "supervised"

    def scores(self, method, steps):
        """Mean IoU on unseen images after every second step."""
        batch = {"labeled": striped_batch(method.streams[0], 0)}
        unseen = striped_batch(method.streams[0], 1)
        found = []
        for _ in range(steps // 2):
            self.steps(method, batch, 2)
            method.eval()
            with torch.no_grad():
                logits = method.segmentor(unseen.image.float()).logits
            method.train()
            predicted = upsample_logits(logits, SIZE).argmax(1)
            masks = [(predicted == c, unseen.mask == c) for c in (0, 1)]
            found.append(sum(((a & b).sum() / (a | b).sum()).item() for a, b in masks) / 2)
        return found


def test_fine_tuning_reaches_the_score_of_scratch_in_no_more_steps():
    tester, twin = TestLabelPretrain(), Scratch()
    begun, pretraining = twin.build(2), tester.build(2)
    tester.steps(pretraining, {"labeled": striped_batch(pretraining.streams[0], 0)}, 60)
    for part in ("encoder", "decoder"):
        learned = getattr(pretraining.segmentor, part).state_dict()
        getattr(begun.segmentor, part).load_state_dict(learned)
    scratch, tuned = (twin.scores(method, 28) for method in (twin.build(2), begun))
    first = next(place for place, score in enumerate(tuned) if score >= max(scratch))
    assert first <= scratch.index(max(scratch))

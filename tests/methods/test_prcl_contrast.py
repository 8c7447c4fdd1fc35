import warnings

import pytest
import torch
from benchmarks.opcount import OpCount

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.losses import mutual_likelihood
from pixelcontrast.methods import prcl_contrast as module
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.methods.prcl_contrast import (
    PRCLContrast,
    PRCLContrastConfig,
    PRCLHeadConfig,
    ramp_down,
)

DIM, SIZE = 6, (5, 7)


def build(classes=4, **options):
    config = PRCLContrastConfig(
        embedding=PRCLHeadConfig(dim=DIM),
        **{"num_anchors": 8, "num_negatives": 16, "temperature": 10.0, **options},
    )
    task = Task(classes, 255, total_steps=200)
    return PRCLContrast(config, task, lambda purpose: generator_for("cpu", purpose))


def scene(classes=4, images=4, labelled=2, seed=0, sure=False):
    """Random maps; labels at twice the size of the features."""
    g = torch.Generator().manual_seed(seed)
    height, width = SIZE
    mean = torch.randn(images, DIM, height, width, generator=g).requires_grad_()
    variance = torch.rand(images, DIM, height, width, generator=g).requires_grad_()
    labels = torch.randint(classes, (images, height, width), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.1] = 255
    logits = torch.randn(images, classes, height, width, generator=g)
    if sure:
        known = labels.clamp(max=classes - 1)
        logits = 50.0 * torch.nn.functional.one_hot(known, classes).movedim(-1, 1).float()
    confidence = torch.rand(images, height, width, generator=g)
    confidence[:labelled] = 1
    whole = [
        part.repeat_interleave(2, -1).repeat_interleave(2, -2) for part in (labels, confidence)
    ]
    output = SegOutput(logits, logits, (), mean, variance)
    return ContrastBatch(output, whole[0], labelled, step=0, confidence=whole[1])


def backward(batch, report):
    report.total.backward()
    return batch.student.embedding.grad, batch.student.variance.grad


def test_weight_falls_softly_to_zero():
    expected = {0: 1, 50: 0.731616, 100: 0.286505, 150: 0.060055, 199: 0.007083, 200: 0}
    found = {step: ramp_down(step, 200) for step in expected}
    assert found == pytest.approx(expected, abs=1e-6)
    assert build(weight=3.0).weight(100) == pytest.approx(3 * 0.286505, abs=1e-5)
    assert build(weight_schedule="constant").weight(150) == 1
    assert not build(weight=0.0).needs_embedding(0)


@pytest.mark.parametrize("prototype", ["global", "local"])
def test_the_loss_is_that_of_loops_over_what_was_drawn(prototype, monkeypatch):
    """Everything but the draws is computed again, class by class and anchor by anchor."""
    seen = {}
    original = module.distribution_info_nce

    def spy(*args, **kwargs):
        seen["losses"] = original(*args, **kwargs)
        seen["args"], seen["kwargs"] = args, kwargs
        return seen["losses"]

    monkeypatch.setattr(module, "distribution_info_nce", spy)
    term = build(prototype=prototype)
    term(scene(seed=1))
    term.after_step()
    first, second = scene(seed=1), scene(seed=2)
    report = term(second)

    def rows_of(batch):
        labels, sure = batch.labels[:, ::2, ::2], batch.confidence[:, ::2, ::2] >= 0.7
        labels = labels.masked_fill(~sure | (labels == 255), -1).flatten()
        parts = (batch.student.embedding, batch.student.variance)
        return labels, *(p.detach().movedim(1, -1).reshape(-1, DIM) for p in parts)

    labels, means, variances = rows_of(second)
    old_labels, old_means, old_variances = rows_of(first)
    chance = second.student.logits.softmax(1).movedim(1, -1).reshape(-1, 4)
    anchors, positives, keys, negatives = seen["args"]
    assert torch.equal(keys.mean, means)
    terms = []
    for row in range(4):  # every class is present and has hard pixels
        member = labels == row
        precision = (1 / variances[member].double()).sum(0)
        weighted = (means[member].double() / variances[member].double()).sum(0)
        if prototype == "global":
            member = old_labels == row
            precision += (1 / old_variances[member].double()).sum(0)
            weighted += (old_means[member].double() / old_variances[member].double()).sum(0)
        torch.testing.assert_close(positives.mean[row], weighted / precision)
        torch.testing.assert_close(positives.variance[row], 1 / precision)
        hard = {
            tuple(mean.tolist())
            for mean in means[(labels == row) & (chance[:, row] < 0.8)]
        }  # fmt: skip
        assert {tuple(mean.tolist()) for mean in anchors.mean[row].detach()} <= hard
        assert not {row, -1} & set(labels[negatives[row]].flatten().tolist())
        there = seen["kwargs"]["virtual_mask_GV"][row].view(4, 4)
        assert there.all(0).tolist() == [label != row for label in range(4)]
        points = seen["kwargs"]["virtual_GVD"][row][there.flatten()]
        for n in range(8):
            anchor = anchors.mean[row, n].detach(), anchors.variance[row, n].detach()
            others = (keys.mean[negatives[row, n]], keys.variance[negatives[row, n]])
            scores = [
                mutual_likelihood(*anchor, positives.mean[row], positives.variance[row])[None],
                mutual_likelihood(*anchor, *others),
                mutual_likelihood(*anchor, points, torch.zeros_like(points)),
            ]
            logits = torch.cat(scores) / 10
            terms.append(logits.logsumexp(0) - logits[0])
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(report.total.detach(), expected.float(), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_anchors_alone():
    batch = scene()
    gradients = backward(batch, build()(batch))
    for gradient in gradients:
        touched = gradient.movedim(1, -1).reshape(-1, DIM).any(1)
        assert 4 < touched.sum() <= 32


@pytest.mark.parametrize("case", ["one class", "all sure", "all ignored", "none confident"])
def test_nothing_to_contrast_gives_an_attached_zero(case):
    batch = scene(sure=case == "all sure", labelled=0)
    if case == "one class":
        batch.labels.masked_fill_(batch.labels != 255, 1)
    elif case == "all ignored":
        batch.labels.fill_(255)
    elif case == "none confident":
        batch.confidence.zero_()
    report = build()(batch)
    assert report.total.item() == 0
    assert report.total.requires_grad
    for gradient in backward(batch, report):
        assert not gradient.any()
    for value in report.stats.values():
        assert not torch.as_tensor(value).isinf().any()


@pytest.mark.parametrize("classes", [2, 171])
def test_few_and_many_classes(classes):
    batch, term = scene(classes), build(classes)
    report = term(batch)
    assert 0 < report.total.item() < 100
    assert all(gradient.isfinite().all() for gradient in backward(batch, report))


def test_a_lone_hard_pixel_is_drawn_again_and_again():
    batch = scene(2, sure=True)
    logits = batch.student.logits
    place = (batch.labels[0, ::2, ::2] == 0).nonzero()[0]
    logits[0, :, place[0], place[1]] = 0
    gradient, _ = backward(batch, build(2)(batch))
    touched = gradient.movedim(1, -1).reshape(-1, DIM).any(1)
    assert touched.nonzero().flatten().tolist() == [int(place[0] * SIZE[1] + place[1])]


def test_the_divisor_is_the_classes_present_or_those_with_anchors():
    batch = scene(sure=True)
    for label in (0, 1):  # two of four classes get unsure pixels
        batch.student.logits.masked_fill_((batch.labels[:, None, ::2, ::2] == label), 0)
    totals = [build(divide=divide)(batch).total.item() for divide in ("present", "active")]
    assert totals[1] == pytest.approx(2 * totals[0])


def test_ground_truth_alone_needs_no_confidence():
    batch = scene()
    plain = ContrastBatch(batch.student, batch.labels, labelled=4, step=0)
    assert build()(plain).total.item() > 0


def test_low_confidence_leaves_pseudo_labels_out():
    batch = scene(labelled=2)
    batch.confidence[2:] = 0.69
    gradient, _ = backward(batch, build()(batch))
    assert gradient[:2].any()
    assert not gradient[2:].any()


def test_the_memory_changes_after_the_step_alone():
    term, batch = build(), scene()
    first, again = term(batch).total, term(batch).total
    assert torch.equal(first, again)
    assert not term.prototypes.seen.any()
    term.kept.pop()
    term.after_step()
    assert term.prototypes.seen.all()
    assert not term.kept
    assert term(batch).total != first


def test_a_restored_term_goes_on_alike():
    whole, restored = build(), build()
    for step in range(3):
        whole(scene(seed=step))
        whole.after_step()
    restored.load_state_dict(whole.state_dict())
    for step in range(3, 8):
        values = []
        for term in (whole, restored):
            values.append(term(scene(seed=step)).total)
            term.after_step()
        assert torch.equal(*values)


def test_the_host_waits_once():
    term = build()
    with OpCount() as counted:
        term(scene()).total.backward()
    assert sum(counted.forcing.values()) == 1


def test_copies_of_prototypes_are_warned_of_once():
    term = build()
    term.varied.patience = term.started.patience = 3
    with pytest.warns(UserWarning, match="virtual_noise = variance") as caught:
        run(term, 5)
    assert len(caught) == 1
    diverse = build(virtual_noise="exp-half-variance")
    diverse.varied.patience = 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            report = diverse(scene())
    assert report.stats["virtual_cosine"] < 0.99


def run(term, steps, **options):
    """Steps against prototypes that are sure of themselves."""
    classes = torch.arange(4).repeat(10)
    for _ in range(steps):
        term.prototypes.update(torch.randn(40, DIM), torch.full((40, DIM), 1e-4), classes)
        term(scene(**options))


def test_a_contrast_without_anchors_is_warned_of():
    term = build()
    term.started.patience = 3
    with pytest.warns(UserWarning, match=r"anchor_threshold = 0\.8"):
        run(term, 4, sure=True)


def test_values_that_are_not_numbers_reach_the_loss():
    batch = scene()
    batch.student.embedding.data[0, :, 2, 3] = torch.nan
    assert build()(batch).total.isnan()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"num_anchors": 0}, "num_anchors"),
        ({"num_negatives": -1}, "num_negatives"),
        ({"prototype_decay": 0.0}, "prototype_decay"),
        ({"embedding": PRCLHeadConfig(variance=False)}, "variance"),
    ],
)
def test_impossible_settings_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        PRCLContrastConfig(**options)

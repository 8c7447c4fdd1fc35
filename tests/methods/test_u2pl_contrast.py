import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.methods.u2pl_contrast import (
    U2PLContrast,
    U2PLContrastConfig,
    class_weights,
    resolved_ranks,
)
from pixelcontrast.models import EmbeddingConfig
from tests.methods.tester import MethodTester


def build(classes=2, dim=4, total_steps=80, epoch_steps=1, **settings):
    settings = {"weight": 1.0, "queue": 60, "anchors": 8, **settings}
    config = U2PLContrastConfig(embedding=EmbeddingConfig(dim=dim, normalise=False), **settings)
    task = Task(classes, 255, total_steps=total_steps, epoch_steps=epoch_steps)
    return U2PLContrast(config, task, lambda purpose: generator_for("cpu", purpose))


def two_pixels(term, scores, embedding=None, scale=1.0, key=None):
    """One labelled image of two pixels, of classes 0 and 1, along the first two axes."""
    vectors = torch.eye(4)[:2].T.reshape(1, 4, 1, 2)
    student = (scale * vectors if embedding is None else embedding).clone().requires_grad_()
    logits = torch.tensor(scores).T.reshape(1, 2, 1, 2)
    if key is not None:
        for label in (0, 1):
            keys = key(torch.eye(4)[label]).expand(20, 4)
            term.queue.enqueue(F.normalize(keys, dim=1), torch.full((20,), label))
    batch = ContrastBatch(
        student=SegOutput(logits, logits, embedding=student),
        labels=torch.tensor([[[0, 1]]]),
        labelled=1,
        step=0,
        teacher=SegOutput(logits, logits, embedding=7 * vectors),
    )
    return term(batch), student


RIGHT = [[5.0, 0.0], [0.0, 5.0]]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (lambda own: -own, 0.650126),
        (lambda own: torch.tensor([0.0, 0.0, 0.0, 1.0]), 2.04985),
        (lambda own: 3 * own, 3.931826),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_values_by_hand(key, expected, scale):
    report, student = two_pixels(build(), RIGHT, scale=scale, key=key)
    assert report.terms["contrast"].item() == pytest.approx(expected, rel=1e-5)
    report.terms["contrast"].backward()
    assert student.grad.isfinite().all()
    assert report.stats["positive_similarity"].item() == pytest.approx(1.0)


def test_a_class_without_anchors_stays_in_the_divisor():
    # The pixel of class 1 is taken for class 0: no anchor, but the one negative of class 0.
    report, _ = two_pixels(build(), [[5.0, 0.0], [5.0, 0.0]])
    value = math.log(1 + 50 * math.exp(-2)) / 2
    assert report.terms["contrast"].item() == pytest.approx(value, rel=1e-5)
    assert report.stats["contrast_classes"] == 1
    assert report.stats["anchors_per_class"].tolist() == [1, 0]
    assert report.stats["negative_pixels"] == 1


def test_nothing_to_compare_is_a_zero_in_the_graph():
    report, student = two_pixels(build(), RIGHT)  # no keys: the queues are empty
    report.terms["contrast"].backward()
    assert report.terms["contrast"].item() == 0.0
    assert student.grad.count_nonzero() == 0


def test_a_single_class_has_no_weight():
    assert class_weights(*(torch.tensor([5, 0]) for _ in range(3))).tolist() == [0, 0]
    counts = [torch.tensor(c) for c in ([5, 5, 5, 0], [1, 0, 1, 0], [2, 2, 0, 9])]
    torch.testing.assert_close(class_weights(*counts), torch.tensor([1 / 3, 0, 0, 0]))


@pytest.mark.parametrize(("classes", "ranks"), [(2, (1, 2)), (3, (1, 3)), (4, (2, 4)), (5, (3, 5))])
def test_ranks_follow_the_number_of_classes(classes, ranks):
    assert resolved_ranks(U2PLContrastConfig(), classes) == ranks


def test_the_papers_ranks_on_the_papers_data():
    assert resolved_ranks(U2PLContrastConfig(), 21) == (3, 20)
    assert resolved_ranks(U2PLContrastConfig(), 19) == (3, 19)
    assert resolved_ranks(U2PLContrastConfig(), 171) == (3, 20)


@pytest.mark.parametrize(
    ("classes", "low", "high"), [(2, 3, 20), (3, 3, 20), (9, 5, 5), (9, 0, 3), (9, 9, 20)]
)
def test_ranks_that_leave_no_negatives_are_refused(classes, low, high):
    with pytest.raises(ConfigError, match="no negatives"):
        resolved_ranks(U2PLContrastConfig(low_rank=low, high_rank=high), classes)


def test_unfit_settings_are_refused():
    for bad in ({"anchors": 0}, {"key_cap": -1}, {"unreliable_percent": 120.0}):
        with pytest.raises(ConfigError):
            U2PLContrastConfig(**bad)


def test_the_unreliable_share_falls_to_zero():
    term = build(total_steps=80)
    shares = [term.unreliable_share(step) for step in (0, 40, 79)]
    assert shares == pytest.approx([20, 10, 0.25])
    term = build(total_steps=80, epoch_steps=8, schedule="epoch")
    assert [term.unreliable_share(step) for step in (0, 7, 8)] == [20, 20, 18]


def random_batch(classes, dim=4, labelled=1, images=3, seed=0, step=0, **maps):
    generator = torch.Generator().manual_seed(seed)
    shape = (images, dim, 6, 7)
    logits = 2 * torch.randn(images, classes, 6, 7, generator=generator)
    labels = logits.argmax(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    return ContrastBatch(
        student=SegOutput(
            logits, logits, embedding=torch.randn(shape, generator=generator).requires_grad_()
        ),
        labels=labels,
        labelled=labelled,
        step=step,
        teacher=SegOutput(logits, logits, embedding=torch.randn(shape, generator=generator)),
        **maps,
    )


@pytest.mark.parametrize("classes", [2, 3, 171])
def test_any_number_of_classes_learns(classes):
    term = build(classes, key_cap=20)
    report = term(random_batch(classes))
    report = term(random_batch(classes))
    report.terms["contrast"].backward()
    assert report.terms["contrast"] > 0
    assert (term.queue.count[:2] > 0).all()


def test_without_unlabelled_images_it_contrasts_the_labelled_ones():
    term = build(5)
    batch = random_batch(5, labelled=3)
    scores = batch.teacher.logits + torch.randn(batch.teacher.logits.shape)
    teacher = SegOutput(scores, scores, embedding=batch.teacher.embedding)
    report = term(ContrastBatch(batch.student, batch.labels, 3, 0, teacher))
    assert report.terms["contrast"] > 0


def test_untrusted_and_unseen_pixels_take_no_part():
    nothing = torch.zeros(2, 12, 14, dtype=torch.bool)
    term = build(5)
    report = term(random_batch(5, trusted=nothing, unreliable=nothing))
    alone = build(5)
    alone(random_batch(5, valid=torch.ones(3, 12, 14, dtype=torch.bool)))
    labelled = 6 * 7
    assert report.stats["anchor_pixels"] <= labelled
    assert report.stats["negative_pixels"] <= 3 * labelled
    assert alone.queue.count.sum() > term.queue.count.sum()
    hidden = build(5)
    shown = torch.ones(3, 12, 14, dtype=torch.bool)
    shown[1:] = False
    hidden(random_batch(5, valid=shown))
    assert torch.equal(hidden.queue.count, term.queue.count)


def test_the_most_unsure_pixels_are_the_negatives_of_unlabelled_images():
    term = build(5, unreliable_percent=25.0, low_rank=1, high_rank=2)
    batch = random_batch(5, labelled=0, images=2)
    report = term(batch)
    assert report.stats["negative_pixels"] == pytest.approx(0.25 * 2 * 6 * 7, abs=8)


def test_keys_are_capped_and_zero_lifts_the_cap():
    counts = {}
    for cap in (3, 0):
        term = build(5, key_cap=cap, queue=15)
        counts[cap] = (term(random_batch(5)), term.queue.count)
    assert counts[3][1].max() == 3
    assert (counts[0][1] == 15).all()


def test_non_finite_teacher_pixels_are_left_out():
    batch = random_batch(4)
    batch.teacher.logits[:, :, 2] = torch.nan
    batch.teacher.embedding[:, :, 2] = torch.inf
    term = build(4)
    report = term(batch)
    report.terms["contrast"].backward()
    assert report.terms["contrast"].isfinite()
    assert term.queue.rows.isfinite().all()
    assert batch.student.embedding.grad.isfinite().all()
    assert batch.student.embedding.grad[:, :, 2].count_nonzero() == 0


def test_a_running_centre_keeps_classes_that_are_absent():
    term = build(3, centre_decay=0.999)
    keys = torch.zeros(1, 4, 1, 2)
    keys[0, 0, 0, 0], keys[0, 1, 0, 1] = 2.0, 4.0

    def centres(*labels):
        ids = torch.tensor(labels).view(1, 1, 2)
        roles = type("Roles", (), {"reliable": ids, "anchors": ids})
        return term._centres(keys, roles)

    centres(0, 1)
    unit, count = centres(1, 1)
    assert count.tolist() == [0, 2, 0]
    torch.testing.assert_close(unit[0], torch.tensor([1.0, 0, 0, 0]))
    # The mean of the first centre (0, 4) and the second (1, 2).
    torch.testing.assert_close(term.centre[1], torch.tensor([0.5, 3.0, 0, 0]))
    assert unit[2].tolist() == [0, 0, 0, 0]


def test_centres_of_anchors_alone():
    term = build(2, centre_pixels="anchors")
    report, _ = two_pixels(term, [[5.0, 0.0], [5.0, 0.0]])
    assert report.terms["contrast"].item() == pytest.approx(
        math.log(1 + 50 * math.exp(-2)) / 2, rel=1e-5
    )


def test_a_term_that_never_compares_says_which_setting_is_why():
    term = build(2, min_probability=0.999999)
    term.watches[0].patience = term.watches[1].patience = 2
    two_pixels(term, RIGHT)
    with pytest.warns(UserWarning, match="so contrast is 0") as caught:
        two_pixels(term, RIGHT)
    messages = " ".join(str(w.message) for w in caught)
    assert "min_probability = 0.999999" in messages
    assert "low_rank = 1" in messages


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_value_is_read_back(device, monkeypatch):
    monkeypatch.setattr(KeptWatch, "note", lambda *_: None)  # has its own test
    with FakeTensorMode():
        term = build(5).to(device)
        logits = torch.rand(3, 5, 6, 7, device=device)
        embedding = torch.rand(3, 4, 6, 7, device=device)
        output = SegOutput(logits, logits, embedding=embedding)
        labels = torch.zeros(3, 12, 14, dtype=torch.long, device=device)
        report = term(ContrastBatch(output, labels, 1, 0, output))
        assert report.terms["contrast"].device.type == device


@pytest.mark.parametrize("name", ["mean_teacher", "unimatch_v2"])
def test_the_term_joins_other_methods(name):
    head = {"dim": 8, "layers": 2, "hidden": 16, "normalise": False}
    choice = {"name": "u2pl", "anchors": 16, "min_probability": 0.1, "embedding": head}

    class Joined(MethodTester):
        options: ClassVar[dict] = {"contrast": choice}

    Joined.name = name
    method = Joined().build(4)
    batch = Joined().batch(method, 4)
    method.losses(batch)
    report = method.losses(batch)
    report.total.backward()
    assert report.terms["contrast"] > 0
    assert report.stats["contrast_classes"] > 1

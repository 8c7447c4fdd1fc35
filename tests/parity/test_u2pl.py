"""U2PL against the authors' code (2203.03884), and its faults mended."""

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.class_sums import class_sums
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.teacher import Teacher
from pixelcontrast.core.types import SegOutput
from pixelcontrast.data.mixing import MixInput, cut_out, mix
from pixelcontrast.losses import reweighted_consistency
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import ContrastBatch
from pixelcontrast.methods.optim import OptimConfig, build_optimizer, build_schedule
from pixelcontrast.methods.segmentation import SegmentationLoss, SegmentationLossConfig
from pixelcontrast.methods.u2pl_contrast import U2PLContrast, U2PLContrastConfig
from pixelcontrast.models import EmbeddingConfig
from pixelcontrast.sampling import (
    ClassMembers,
    class_roles,
    entropy_threshold,
    pixels_of,
    pseudo_labels,
    ranked_between,
    with_ignore,
)
from pixelcontrast.sampling.members import Numbers

KINDS = {"ema", "fixed", "lr", "masks", "mix", "official", "sched", "sup", "unsup"}
IGNORE = 255


def close(found, expected, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def setting(case, name):
    return case.arrays[f"cfg.{name}"].item()


def test_every_case_has_a_check(reference_cases):
    cases = reference_cases("u2pl")
    assert {case.kind for case in cases} == KINDS


def unlabelled_entropy(case):
    """Entropy and which pixels count, at full size."""
    valid = case.tensor("in.label_u") != IGNORE
    return pseudo_labels(case.tensor("in.teacher_logits_u_full"), valid, entropy=True)


@pytest.mark.reference("u2pl", kind="sched")
def test_the_unreliable_share_falls(case):
    config = U2PLContrastConfig(unreliable_percent=100 - setting(case, "drop_percent"))
    task = Task(5, IGNORE, total_steps=setting(case, "epochs"))
    share = U2PLContrast(config, task, None).unreliable_share(setting(case, "epoch"))
    assert 100 - share == pytest.approx(case.arrays["sched.unsup_percent_at_epoch"].item())


@pytest.mark.reference("u2pl", kind="unsup")
def test_unsupervised_loss(case):
    labels = case.tensor("in.label_u").long()
    pseudo = unlabelled_entropy(case)
    for j, percent in enumerate(case.arrays["unsup.percents"]):
        group = f"unsup.{j}."
        threshold = entropy_threshold(pseudo.entropy, pseudo.valid, float(percent))
        close(threshold, case.tensor(group + "thresh"))
        keep = pseudo.valid & (pseudo.entropy < threshold)
        assert torch.equal(
            with_ignore(labels, keep, IGNORE), case.tensor(group + "target_after").long()
        )
        assert keep.sum() == case.tensor(group + "kept")
        close(keep.numel() / keep.sum(), case.tensor(group + "weight", torch.float32))
        logits = case.tensor("in.student_logits_u_full").requires_grad_()
        loss = reweighted_consistency(logits, labels, keep)
        loss.backward()
        close(loss.detach(), case.tensor(group + "loss"))
        close(logits.grad, case.tensor(group + "grad"))


@pytest.mark.reference("u2pl", kind="masks")
def test_masks_and_ranks(case):
    alpha = case.arrays["masks.alpha_t"].item()
    pseudo = unlabelled_entropy(case)
    close(pseudo.entropy, case.tensor("masks.entropy"))
    low = entropy_threshold(pseudo.entropy, pseudo.valid, alpha)
    high = entropy_threshold(pseudo.entropy, pseudo.valid, 100 - alpha)
    close(low, case.tensor("masks.low_thresh"))
    close(high, case.tensor("masks.high_thresh"))
    surest = pseudo.valid & (pseudo.entropy <= low)
    unsure = pseudo.valid & (pseudo.entropy >= high)
    assert torch.equal(surest, case.tensor("masks.low_entropy_full"))
    assert torch.equal(unsure, case.tensor("masks.high_entropy_full"))
    size = tuple(case.arrays["cfg.size_low"])
    given = resize_labels(case.tensor("in.label_l"), size)
    for name, full in (("low", surest), ("high", unsure)):
        small = torch.cat([given != IGNORE, resize_labels(full, size)])
        assert torch.equal(small, case.tensor(f"masks.{name}_mask_all"))
    classes = range(setting(case, "num_classes"))
    for name in ("l", "u"):
        labels = resize_labels(case.tensor(f"in.label_{name}"), size)
        onehot = torch.stack([labels == c for c in classes], 1)
        assert torch.equal(onehot, case.tensor(f"masks.onehot_{name}_low"))
    ranks = case.tensor("masks.class_rank")
    scores = case.tensor("in.teacher_logits_low")
    for start in classes:
        for stop in range(start, len(classes) + 2):
            expected = (ranks >= start) & (ranks < stop)
            assert torch.equal(ranked_between(scores, start, stop), expected)


def full_size(case):
    """Labels, those of the unlabelled images that the reference trusts, and unsure pixels."""
    labels = torch.cat([case.tensor(f"in.label_{kind}").long() for kind in "lu"])
    return labels, case.tensor("masks.low_entropy_full"), case.tensor("masks.high_entropy_full")


def roles(case, rule):
    labels, trusted, unsure = full_size(case)
    size = tuple(case.arrays["cfg.size_low"])
    labels = resize_labels(labels, size)
    given = setting(case, "num_labeled")
    return class_roles(
        labels,
        case.tensor("in.teacher_logits_low"),
        resize_labels(trusted, size),
        resize_labels(unsure, size),
        labelled=given,
        low_rank=setting(case, "low_rank"),
        high_rank=setting(case, "high_rank"),
        min_probability=setting(case, "delta_p"),
        negative_rule=rule,
    )


def check_masks_and_centres(case, group, rule):
    found = roles(case, rule)
    classes = setting(case, "num_classes")
    for name, mask in (
        ("positive", pixels_of(found.reliable, classes)),
        ("anchor", pixels_of(found.anchors, classes)),
        ("negative", found.negatives),
    ):
        assert torch.equal(mask, case.tensor(f"{group}.{name}_mask")), name
    features = case.tensor("in.rep_teacher").flatten(2).mT
    sums, count = class_sums(features, found.reliable.flatten(1), classes)
    count = count.sum(0)
    assert count.nonzero()[:, 0].tolist() == case.arrays[f"{group}.valid_classes"].tolist()
    centre = torch.where(count[:, None] > 0, sums.sum(0) / count[:, None], torch.nan)
    expected = case.tensor(f"{group}.prototype")
    torch.testing.assert_close(centre, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert found.negatives.flatten(1).sum(1).tolist() == (
        case.arrays[f"{group}.keys_count"].tolist()
    )


def contrast_term(case, rule):
    """The term with the filled queues of the case."""
    sizes = case.arrays["cfg.queue_size"].tolist()
    assert len(set(sizes[1:])) == 1
    config = U2PLContrastConfig(
        embedding=EmbeddingConfig(dim=setting(case, "feat_dim"), normalise=False),
        weight=1.0,
        temperature=setting(case, "temperature"),
        anchors=setting(case, "num_queries"),
        negatives=setting(case, "num_negatives"),
        min_probability=setting(case, "delta_p"),
        low_rank=setting(case, "low_rank"),
        high_rank=setting(case, "high_rank"),
        negative_rule=rule,
        key_cap=0,
        queue=sizes[1],
        queue_class0=sizes[0],
    )
    task = Task(setting(case, "num_classes"), IGNORE, total_steps=100)
    term = U2PLContrast(config, task, lambda purpose: generator_for("cpu", purpose))
    for label in range(task.num_classes):
        keys = F.normalize(case.tensor(f"in.bank_{label}"), dim=1)
        term.queue.enqueue(keys, torch.full((len(keys),), label))
    assert term.queue.count.tolist() == case.arrays["in.bank_ptr"].tolist()
    return term


def stored_draws(case, group, term, monkeypatch):
    """Let the term choose the anchors and keys the reference chose."""
    classes, anchors = setting(case, "num_classes"), setting(case, "num_queries")
    chosen = torch.zeros(classes, anchors, dtype=torch.long)
    keys = torch.zeros(classes, anchors * setting(case, "num_negatives"), dtype=torch.long)
    for i, label in enumerate(case.arrays[f"{group}.draw_anchor_class"].tolist()):
        chosen[label] = case.tensor(f"{group}.draw_{i}.anchor_idx", torch.long)
        keys[label] = case.tensor(f"{group}.draw_{i}.negative_idx", torch.long)
    monkeypatch.setattr(
        ClassMembers, "draw", lambda self, *_: Numbers(chosen, torch.ones_like(chosen) > 0)
    )

    def rows(*_):
        queue = term.queue  # keys are numbered from the oldest on
        turn = (queue.written - queue.count)[:, None] + keys
        return queue.first[:, None] + turn % queue.capacity[:, None]

    monkeypatch.setattr(term.queue, "draw", rows)


def stored_keys(queue, label):
    """Oldest first."""
    count, turn = int(queue.count[label]), int(queue.written[label])
    ring = int(queue.first[label]) + torch.arange(turn - count, turn) % queue.capacity[label]
    return queue.rows[ring]


def check_term(case, group, rule, monkeypatch, *, loss=True):
    term = contrast_term(case, rule)
    stored_draws(case, group, term, monkeypatch)
    labels, trusted, unsure = full_size(case)
    logits, teacher = case.tensor("in.teacher_logits_low"), case.tensor("in.rep_teacher")
    student = case.tensor("in.rep_student").requires_grad_()
    batch = ContrastBatch(
        student=SegOutput(logits, logits, embedding=student),
        labels=labels,
        labelled=setting(case, "num_labeled"),
        step=0,
        teacher=SegOutput(logits, logits, embedding=teacher),
        trusted=trusted,
        unreliable=unsure,
    )
    found = term(batch).terms["contrast"]
    for label in range(setting(case, "num_classes")):
        expected = F.normalize(case.tensor(f"{group}.bank_after_{label}"), dim=1)
        close(stored_keys(term.queue, label), expected)
    assert term.queue.count.tolist() == case.arrays[f"{group}.bank_ptr_after"].tolist()
    if loss:
        found.backward()
        close(found.detach(), case.tensor(f"{group}.loss"))
        close(student.grad, case.tensor(f"{group}.grad_rep"))
        valid = case.arrays[f"{group}.valid_classes"].size
        close(case.tensor(f"{group}.class_loss").sum() / valid, found.detach())


@pytest.mark.reference("u2pl", kind="fixed")
def test_contrast_with_the_faults_mended(case, monkeypatch):
    check_masks_and_centres(case, "fixed", "paper")
    check_term(case, "fixed", "paper", monkeypatch)


@pytest.mark.reference("u2pl", kind="official")
def test_contrast_with_negatives_as_in_the_code(case, monkeypatch):
    check_masks_and_centres(case, "official", "own_label")
    # Where a class is absent the code compares with another class's keys; we never do.
    matching = [case.arrays[f"official.draw_{who}_class"].tolist() for who in ("anchor", "bank")]
    check_term(case, "official", "own_label", monkeypatch, loss=matching[0] == matching[1])


@pytest.mark.reference("u2pl", kind="sup")
def test_supervised_loss(case):
    labels = case.tensor("in.label_l")
    for kind in ("ce", "ohem"):
        config = SegmentationLossConfig(
            auxiliary_weight=case.arrays["sup.aux_weight"].item(),
            ohem_threshold=0.7 if kind == "ohem" else None,
            ohem_min_kept=case.arrays["sup.ohem.min_kept"].item(),
        )
        loss = SegmentationLoss(config, setting(case, "num_classes"), IGNORE)
        main = case.tensor("in.student_logits_l_full").requires_grad_()
        auxiliary = case.tensor("in.student_aux_l_full").requires_grad_()
        terms = loss(SegOutput(main, main, auxiliary=(auxiliary,)), labels)
        sum(terms.values()).backward()
        close(sum(terms.values()).detach(), case.tensor(f"sup.{kind}.loss"))
        close(main.grad, case.tensor(f"sup.{kind}.grad_main"))
        close(auxiliary.grad, case.tensor(f"sup.{kind}.grad_aux"))
        if kind == "ce":
            close(terms["ce"].detach(), case.tensor("sup.ce_noaux.loss"))


@pytest.mark.reference("u2pl", kind="mix")
def test_mixing(case):
    image, label, conf = (case.tensor(f"mix.{name}") for name in ("image", "target", "conf"))
    own = MixInput(image, label.long(), conf)
    following = MixInput(image.roll(-1, 0), label.long().roll(-1, 0), conf.roll(-1, 0))
    for kind in ("cutout", "cutmix", "classmix"):
        keep = case.tensor(f"mix.{kind}.mask") == 1
        if kind == "cutout":
            mixed = cut_out(own, keep, fill=(0, 0, 0), ignore_index=IGNORE)
        else:
            mixed = mix(own, keep, following)
        close(mixed.image, case.tensor(f"mix.{kind}.image"))
        assert torch.equal(mixed.label, case.tensor(f"mix.{kind}.target").long())
        close(mixed.confidence, case.tensor(f"mix.{kind}.conf"))


@pytest.mark.reference("u2pl", kind="ema")
def test_the_teacher_is_copied_once_and_then_averaged(case):
    student = torch.nn.Linear(1, case.arrays["ema.student_start"].size, bias=False)
    teacher = Teacher(student, decay=case.arrays["ema.decay_cap"].item(), buffers="own")
    alone = case.arrays["ema.len_loader"] * case.arrays["ema.sup_only_epoch"]
    expected = case.tensor("ema.fixed_teacher_after")
    for step, weights in enumerate(case.tensor("ema.student_after")):
        before = student.weight.detach().clone()
        with torch.no_grad():
            student.weight.copy_(weights[:, None])
        if step < alone:
            teacher.restart(student)
            continue
        if step == alone:
            assert torch.equal(teacher.module.weight, before)
        teacher.update(student)
        close(teacher.module.weight[:, 0], expected[step])


@pytest.mark.reference("u2pl", kind="lr")
def test_learning_rates(case):
    values = case.tensor("lr.values", torch.float64)
    power = case.arrays["lr.power"].item()
    for column, base in enumerate(values[0].tolist()):
        config = OptimConfig(name="sgd", lr=base, schedule="poly", power=power)
        group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": base}
        optimizer = build_optimizer([group], config)
        schedule = build_schedule(optimizer, config, case.arrays["lr.total_iters"].item())
        for expected in values[:, column]:
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected.item(), rel=1e-9)
            optimizer.step()
            schedule.step()

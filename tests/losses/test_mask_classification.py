import itertools

import pytest
import torch
from tests.gloo import two_processes

from pixelcontrast.losses import mask_classification_loss
from pixelcontrast.losses.mask_classification import matching_cost

IGNORE = 255
C, Q = 4, 6


def problem(batch=3, layers=2, seed=0, ignored=False):
    """Scores on a grid of 5 x 6 and labels 4 times as fine, constant on each cell."""
    g = torch.Generator().manual_seed(seed)
    classes = [torch.randn(batch, Q, C + 1, generator=g) for _ in range(layers)]
    masks = [2 * torch.randn(batch, Q, 5, 6, generator=g) for _ in range(layers)]
    cells = torch.randint(0, C, (batch, 5, 6), generator=g)
    cells[0][cells[0] == 2] = 0  # a class that one image lacks
    if ignored:
        cells[torch.rand(cells.shape, generator=g) < 0.3] = IGNORE
    return classes, masks, cells.repeat_interleave(4, 1).repeat_interleave(4, 2)


def pair_losses(scores, target, known):
    """Focal and dice loss of one mask, written out, over the known pixels."""
    p = scores.sigmoid()
    focal = torch.where(target, -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log())[
        known
    ].mean()
    t = target[known].double()
    dice = 1 - (2 * (p[known] * t).sum() + 1) / (p[known].sum() + t.sum() + 1)
    return focal, dice


def slow_loss(classes, masks, labels):
    """Section 3.3 by trying every matching."""
    totals = {"mask_class": 0.0, "mask_focal": 0.0, "mask_dice": 0.0}
    for layer_classes, layer_masks in zip(classes, masks, strict=True):
        nll, weight, focals, dices = 0.0, 0.0, [], []
        for c, m, label in zip(layer_classes.double(), layer_masks.double(), labels, strict=True):
            known = label != IGNORE
            present = [k for k in range(C) if (label == k).any()]
            if not present:
                continue
            small, cell = label[::4, ::4], known[::4, ::4]
            cost = {}
            for q, k in itertools.product(range(Q), present):
                focal, dice = pair_losses(m[q], small == k, cell)
                cost[q, k] = 20 * focal + dice - c[q].softmax(0)[k]
            best = min(
                itertools.permutations(range(Q), len(present)),
                key=lambda chosen: sum(cost[pair] for pair in zip(chosen, present, strict=True)),
            )
            target = [C] * Q
            for q, k in zip(best, present, strict=True):
                target[q] = k
                wide = torch.nn.functional.interpolate(
                    m[q][None, None], label.shape, mode="bilinear", align_corners=False
                )
                focal, dice = pair_losses(wide[0, 0], label == k, known)
                focals.append(focal)
                dices.append(dice)
            for q, k in enumerate(target):
                w = 0.1 if k == C else 1.0
                nll, weight = nll - w * c[q].log_softmax(0)[k], weight + w
        totals["mask_class"] += nll / weight
        totals["mask_focal"] += 20 * sum(focals) / len(focals)
        totals["mask_dice"] += sum(dices) / len(dices)
    return totals


@pytest.mark.parametrize("ignored", [False, True])
def test_equals_the_slow_form(ignored):
    classes, masks, labels = problem(ignored=ignored)
    found = mask_classification_loss(classes, masks, labels.to(torch.uint8), ignore_index=IGNORE)
    for name, expected in slow_loss(classes, masks, labels).items():
        torch.testing.assert_close(
            found[name].double(), torch.as_tensor(expected), rtol=1e-4, atol=0
        )


def test_equals_transformers():
    pytest.importorskip("transformers", minversion="5.23")
    from transformers.models.maskformer import modeling_maskformer as theirs

    classes, masks, labels = problem(layers=1)
    matcher = theirs.MaskFormerHungarianMatcher(1.0, 20.0, 1.0)
    criterion = theirs.MaskFormerLoss(C, matcher, {}, eos_coef=0.1)
    present = [image.unique() for image in labels]
    targets = [
        (image == ids[:, None, None]).float() for image, ids in zip(labels, present, strict=True)
    ]
    expected = criterion(masks[0], classes[0], targets, present)
    found = mask_classification_loss(classes, masks, labels, ignore_index=IGNORE)
    torch.testing.assert_close(found["mask_class"], expected["loss_cross_entropy"])
    torch.testing.assert_close(found["mask_focal"], 20 * expected["loss_mask"])
    torch.testing.assert_close(found["mask_dice"], expected["loss_dice"])


def test_cost_of_a_class_that_no_pixel_has_is_finite():
    classes, masks, labels = problem()
    nowhere = torch.zeros(len(labels), masks[0][0, 0].numel(), C)
    cost = matching_cost(classes[0], 1e4 * masks[0], nowhere)
    assert cost.shape == (3, Q, C)
    assert torch.isfinite(cost).all()


def test_nothing_to_learn_is_an_attached_zero():
    classes, masks, labels = problem()
    leaves = [t.requires_grad_() for t in (*classes, *masks)]
    terms = mask_classification_loss(
        classes, masks, torch.full_like(labels, IGNORE), ignore_index=IGNORE
    )
    total = torch.stack(list(terms.values())).sum()
    assert total == 0
    total.backward()
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)


def test_ignored_pixels_and_unlabelled_images_count_nowhere():
    classes, masks, labels = problem(batch=2, layers=1, ignored=True)
    labels[1] = IGNORE
    masks[0].requires_grad_()
    classes[0].requires_grad_()
    terms = mask_classification_loss(classes, masks, labels, ignore_index=IGNORE)
    alone = mask_classification_loss(
        [classes[0][:1]], [masks[0][:1]], labels[:1], ignore_index=IGNORE
    )
    for name, term in terms.items():
        torch.testing.assert_close(term, alone[name])
    torch.stack(list(terms.values())).sum().backward()
    assert not masks[0].grad[1].any()
    assert not classes[0].grad[1].any()


def test_more_classes_than_predictions():
    classes, masks, labels = problem()
    few = [c[:, :2] for c in classes], [m[:, :2] for m in masks]
    terms = mask_classification_loss(*few, labels, ignore_index=IGNORE)
    assert all(torch.isfinite(term) for term in terms.values())


def test_class_weights_weight_the_matched_classes():
    classes, masks, labels = problem(layers=1)
    plain = mask_classification_loss(classes, masks, labels, ignore_index=IGNORE)
    ones = mask_classification_loss(
        classes, masks, labels, ignore_index=IGNORE, class_weights=torch.ones(C)
    )
    other = mask_classification_loss(
        classes, masks, labels, ignore_index=IGNORE, class_weights=torch.tensor([5.0, 1, 1, 1])
    )
    assert ones == plain
    assert other["mask_class"] != plain["mask_class"]
    assert other["mask_focal"] == plain["mask_focal"]


def test_half_precision_under_autocast():
    classes, masks, labels = problem(layers=1)
    low = [classes[0].bfloat16()], [masks[0].bfloat16()]
    with torch.autocast("cpu", torch.bfloat16):
        terms = mask_classification_loss(*low, labels, ignore_index=IGNORE)
    exact = mask_classification_loss(
        [low[0][0].float()], [low[1][0].float()], labels, ignore_index=IGNORE
    )
    assert all(torch.equal(terms[name], exact[name]) for name in exact)


def share(rank):
    classes, masks, labels = problem(batch=4)
    part = slice(0, 1) if rank == 0 else slice(1, 4)
    mine = [c[part].requires_grad_() for c in classes], [m[part].requires_grad_() for m in masks]
    terms = mask_classification_loss(*mine, labels[part], ignore_index=IGNORE)
    torch.stack(list(terms.values())).sum().backward()
    return [t.grad.numpy() for t in (*mine[0], *mine[1])]


def test_two_processes_give_the_gradient_of_one():
    whole = share_of_one()
    parts = two_processes(share)
    for index, expected in enumerate(whole):
        found = (
            torch.cat([torch.from_numpy(part[index]) for part in parts]) / 2
        )  # DistributedDataParallel averages
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def share_of_one():
    classes, masks, labels = problem(batch=4)
    leaves = [t.requires_grad_() for t in (*classes, *masks)]
    terms = mask_classification_loss(classes, masks, labels, ignore_index=IGNORE)
    torch.stack(list(terms.values())).sum().backward()
    return [leaf.grad for leaf in leaves]

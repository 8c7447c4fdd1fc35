import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import (
    batch_loss,
    cross_image_loss,
    draw_partners,
    released_pair_loss,
    within_image_loss,
)


def maps(*images):
    """(B, D, 1, n) from lists of vectors."""
    return torch.tensor(images, dtype=torch.float64).transpose(1, 2)[:, :, None]


def ids(*images):
    return torch.tensor(images)[:, None]


def random_maps(batch=3, dim=6, size=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (batch, size, size), generator=rng)
    labels[torch.rand(labels.shape, generator=rng) < 0.2] = 255
    both = torch.randn(2, batch, dim, size, size, generator=rng, dtype=torch.float64)
    image, copy = F.normalize(both, dim=2)
    return image, copy, labels


class TestClosedForms:
    def test_three_pixels(self):
        x, y = maps([[1, 0], [1, 0], [0, 1]]), ids([0, 0, 1])
        paper = within_image_loss(x, x, y, temperature=1.0)
        assert paper.item() == pytest.approx(0.75847811, abs=1e-8)
        released = within_image_loss(x, x, y, temperature=1.0, denominator="negatives")
        assert released.item() == pytest.approx(0.39265603, abs=1e-8)
        cold = within_image_loss(x, x, y)
        assert cold.item() == pytest.approx(0.462099, abs=1e-6)
        assert 0 < cold.item() - 2 * math.log(2) / 3 < 2e-6  # the bound of collapsed classes

    def test_cross_image(self):
        x = maps([[1, 0], [0, 1]], [[1, 0], [1, 0]])
        partner_label = {0: 0.58762825, 2: 0.31326169}  # another class: the within-image value
        for label, value in partner_label.items():
            y = ids([0, 1], [label, 255])
            both = cross_image_loss(x, x, y, torch.tensor([1, 1]), temperature=1.0)
            # the second image is its own partner and has one pixel: loss log 1 = 0
            assert both.item() * 2 == pytest.approx(value, abs=1e-8)

    def test_released_code(self):
        labels = torch.tensor([-2, -2, -1, -1] + [1] * 4 + [2] * 4 + [3] * 4)
        first = labels.double()[:, None]
        within = released_pair_loss(first, labels, temperature=1.0)
        assert within.item() == pytest.approx(2.450321686, abs=1e-8)
        pair = (first, labels), (2 * first, labels)
        for left, right in (pair, pair[::-1]):
            cross = released_pair_loss(*left, *right, temperature=1.0)
            assert cross.item() == pytest.approx(5.460273578, abs=1e-8)

    def test_equal_features(self):
        x = maps([[1, 0]] * 4)
        for y in ([0, 0, 0, 255], [0, 1, 2, 255], [5, 5, 1, 255]):
            assert within_image_loss(x, x, ids(y)).item() == pytest.approx(math.log(3), abs=1e-12)


def paper_loops(image, copy, labels, partners, tau):
    """Sections 3.1 and 3.2 pixel by pixel; a partner that is the image itself adds nothing."""
    losses = []
    for own, partner in enumerate(partners):
        rows, keys = image[own].flatten(1).T, copy[own].flatten(1).T
        y, far, z = labels[own].flatten(), copy[partner].flatten(1).T, labels[partner].flatten()
        total, count = 0.0, 0
        for p in range(len(rows)):
            if y[p] == 255:
                continue
            near = [
                (torch.exp(rows[p] @ keys[q] / tau), y[q] == y[p])
                for q in range(len(keys))
                if y[q] != 255
            ]
            away = [
                torch.exp(rows[p] @ far[q] / tau)
                for q in range(len(far))
                if z[q] == y[p] and partner != own
            ]
            below = sum(e for e, _ in near) + sum(away)
            positives = [e for e, same in near if same] + away
            total += sum(-torch.log(e / below) for e in positives) / len(positives)
            count += 1
        if count:
            losses.append(total / count)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("partners", [[0, 1, 2], [1, 2, 0], [2, 2, 1]])
def test_class_means_equal_the_double_loop(partners):
    image, copy, labels = random_maps()
    image.requires_grad_()
    copy.requires_grad_()
    loss = cross_image_loss(image, copy, labels, torch.tensor(partners), temperature=0.3)
    expected = paper_loops(image, copy, labels, partners, 0.3)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    for grad, right in zip(
        torch.autograd.grad(loss, (image, copy)),
        torch.autograd.grad(expected, (image, copy)),
        strict=True,
    ):
        torch.testing.assert_close(grad, right, rtol=0, atol=1e-10)


def test_symmetric_is_the_average_of_both_directions():
    image, copy, labels = random_maps()
    partners = torch.tensor([1, 2, 0])
    for loss in (
        within_image_loss,
        lambda *a, **k: cross_image_loss(*a, partners, **k),
        lambda *a, **k: batch_loss(*a, samples=None, **k),
    ):
        both = loss(image, copy, labels, symmetric=True)
        there, back = loss(image, copy, labels), loss(copy, image, labels)
        torch.testing.assert_close(both, (there + back) / 2)
        assert abs(there - back) > 1e-3


def test_an_image_without_labels_changes_nothing_for_the_others():
    image, copy, labels = random_maps()
    labels[1] = 255
    loss = within_image_loss(image, copy, labels)
    kept = [0, 2]
    torch.testing.assert_close(loss, within_image_loss(image[kept], copy[kept], labels[kept]))
    labels[:] = 255
    image.requires_grad_()
    nothing = cross_image_loss(image, copy, labels, torch.tensor([1, 2, 0]))
    nothing.backward()
    assert nothing == 0
    assert not image.grad.any()


def test_batch_draws_labelled_pixels_once():
    image, copy, labels = random_maps(batch=2, size=8)
    full = batch_loss(image, copy, labels, samples=None)
    valid = int((labels != 255).sum())
    # as many samples as labelled pixels: every one is drawn, none twice
    drawn = batch_loss(
        image, copy, labels, samples=valid, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(drawn, full)
    some = [
        batch_loss(image, copy, labels, samples=20, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert some[0] == some[1] != some[2]


def test_partners_are_never_the_image_itself():
    rng = torch.Generator().manual_seed(0)
    for batch in (2, 3, 8):
        seen = torch.stack([draw_partners(batch, rng) for _ in range(50)])
        assert (seen.sort(1).values == torch.arange(batch)).all()
        assert (seen != torch.arange(batch)).all()
        assert len(seen.unique(dim=0)) >= min(batch - 1, 6)
    assert draw_partners(1, rng).tolist() == [0]


def test_maps_that_do_not_fit():
    image, copy, labels = random_maps()
    with pytest.raises(ConfigError, match="do not fit"):
        within_image_loss(image, copy[:2], labels)


def test_full_resolution_maps_need_no_matrix():
    """129 x 129 pixels: a similarity matrix has 277 million entries, no tensor here a tenth."""
    largest = 0
    rng = torch.Generator().manual_seed(0)
    image, copy = F.normalize(torch.randn(2, 1, 4, 129, 129, generator=rng), dim=2)
    labels = torch.randint(0, 5, (1, 129, 129), generator=rng)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        loss = within_image_loss(image.requires_grad_(), copy, labels, backend="stream")
        loss.backward()
    assert math.isfinite(loss.item())
    # The bound for one image is 450 MB over forward and backward pass, three such tensors.
    assert 4 * largest < 150e6

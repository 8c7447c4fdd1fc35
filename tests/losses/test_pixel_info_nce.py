import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import PixelInfoNCE, pixel_info_nce

BACKENDS = ("naive", "matrix", "stream")
E = torch.eye(4, dtype=torch.float64)


def official(rows, labels, **options):
    """With the temperatures of the official code of Wang et al. unless given."""
    options = {"temperature": 0.1, "base_temperature": 0.07, **options}
    return pixel_info_nce(rows, torch.as_tensor(labels), **options)


@pytest.mark.parametrize("backend", BACKENDS)
class TestClosedForms:
    """Values worked out by hand; all equal the official function where that is defined."""

    def test_separated_classes(self, backend):
        loss = official(E.repeat(5, 1), [0, 1, 2, 3] * 5, backend=backend)
        assert loss.item() == pytest.approx(0.1 / 0.07 * math.log1p(15 * math.exp(-10)), rel=1e-12)
        assert loss.item() == pytest.approx(0.000972524531, rel=1e-8)

    def test_identical_vectors(self, backend):
        loss = official(E[:1].repeat(20, 1), [0, 1, 2, 3] * 5, backend=backend)
        assert loss.item() == pytest.approx(3.96084103, rel=1e-8)

    def test_antipodal_classes(self, backend):
        rows = torch.cat([E[:1], -E[:1]]).repeat(3, 1)
        loss = official(rows, [0, 1] * 3, temperature=1.0, base_temperature=1.0, backend=backend)
        assert loss.item() == pytest.approx(0.340752954, rel=1e-8)

    def test_orthogonal_vectors_of_uneven_classes(self, backend):
        rows = torch.eye(6, dtype=torch.float64)
        loss = official(rows, [0, 0, 1] * 2, backend=backend)
        assert loss.item() == pytest.approx(1.81269642, rel=1e-8)

    def test_value_and_gradient_of_four_vectors(self, backend):
        root = math.sqrt(3) / 2
        rows = torch.tensor([[1, 0], [0.5, root], [0, 1], [0, 1]], dtype=torch.float64)
        rows.requires_grad_()
        loss = official(rows, [0, 0, 1, 1], temperature=1.0, base_temperature=None, backend=backend)
        loss.backward()
        assert loss.item() == pytest.approx(0.941603346, rel=1e-8)
        expected = [
            (-0.161333704, -0.060379158),
            (-0.322667407, 0.380642131),
            (0.204690039, -0.112210859),
            (0.204690039, -0.112210859),
        ]
        torch.testing.assert_close(
            rows.grad, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9
        )

    def test_a_class_of_one_pixel_is_left_out(self, backend):
        loss = official(E[:3], [0, 0, 1], backend=backend)
        assert loss.item() == pytest.approx(0.990210258, rel=1e-8)

    @pytest.mark.parametrize("labels", [[2, 2, 2], [0, 1, 2], [-1, -1, -1]])
    def test_no_negative_or_no_positive_gives_zero_with_zero_gradient(self, backend, labels):
        rows = F.normalize(torch.rand(3, 4), dim=1).requires_grad_()
        loss = official(rows, labels, backend=backend)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(rows.grad, torch.zeros_like(rows))

    @pytest.mark.parametrize("c", [0, 1, 2])
    def test_memory(self, backend, c):
        memory, ids = E[:3].repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1, 2, 2])
        loss = pixel_info_nce(
            E[c : c + 1], torch.tensor([c]), memory, ids, temperature=1.0, backend=backend
        )
        assert loss.item() == pytest.approx(math.log1p(4 / math.e), rel=1e-12)

    def test_within_image_form_of_three_pixels(self, backend):
        rows, labels = E[[0, 0, 1]], torch.tensor([0, 0, 1])
        options = {"temperature": 1.0, "backend": backend}
        paper = pixel_info_nce(rows, labels, rows, labels, denominator="all", **options)
        released = pixel_info_nce(rows, labels, rows, labels, **options)
        assert paper.item() == pytest.approx(0.75847811, abs=1e-8)
        assert released.item() == pytest.approx(0.39265603, abs=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
class TestInvariants:
    def test_order_names_and_rotation_do_not_matter(self, backend, denominator, unit_rows):
        rows, labels = unit_rows(60, 8, 5)
        rng = torch.Generator().manual_seed(3)
        options = {"denominator": denominator, "backend": backend}
        loss = pixel_info_nce(rows, labels, **options)
        order = torch.randperm(60, generator=rng)
        names = torch.tensor([40, 3, 1000, 0, 7])
        turned = torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=rows.dtype)).Q
        renamed = torch.where(labels < 0, labels, names[labels])
        for other in (
            pixel_info_nce(rows[order], labels[order], **options),
            pixel_info_nce(rows, renamed, **options),
            pixel_info_nce(rows @ turned, labels, **options),
        ):
            torch.testing.assert_close(other, loss, rtol=1e-12, atol=0)

    def test_ignored_pixels_take_no_role(self, backend, denominator, unit_rows):
        rows, labels = unit_rows(50, 8, 3, ignored=0.3)
        options = {"denominator": denominator, "backend": backend}
        seen = rows[labels >= 0]
        expected = pixel_info_nce(seen, labels[labels >= 0], **options)
        rows.requires_grad_()
        for ignored in (-1, -7, 2**40, 255):
            ids = torch.where(labels < 0, ignored, labels)
            loss = pixel_info_nce(rows, ids, ignore_index=ignored, **options)
            torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
            (grad,) = torch.autograd.grad(loss, rows)
            assert not grad[labels < 0].any()
            assert grad[labels >= 0].any(1).all()

    def test_anchors_and_memory_equal_one_set_with_self_index(
        self, backend, denominator, unit_rows
    ):
        a, y = unit_rows(30, 6, 3, seed=1)
        m, z = unit_rows(40, 6, 4, seed=2)
        options = {"denominator": denominator, "backend": backend}
        joint = pixel_info_nce(a, y, m, z, include_anchors=True, **options)
        listed = pixel_info_nce(
            a,
            y,
            torch.cat([m, a]),
            torch.cat([z, y]),
            self_index_N=torch.arange(30) + 40,
            **options,
        )
        torch.testing.assert_close(joint, listed, rtol=1e-12, atol=0)

    def test_reductions_and_weights(self, backend, denominator, unit_rows):
        rows, labels = unit_rows(40, 6, 12, seed=5)
        weights = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=rows.dtype)
        options = {"denominator": denominator, "backend": backend}
        each = pixel_info_nce(rows, labels, reduction="none", **options)
        taken = torch.tensor([(labels == c).sum() > 1 and c >= 0 for c in labels])
        assert 0 < taken.sum() < 40
        assert not each[~taken].any()
        loss = {
            reduction: pixel_info_nce(
                rows, labels, reduction=reduction, weights_N=weights, **options
            )
            for reduction in ("none", "sum", "mean")
        }
        torch.testing.assert_close(loss["none"], each * weights)
        torch.testing.assert_close(loss["sum"], (each * weights).sum())
        torch.testing.assert_close(loss["mean"], (each * weights).sum() / weights[taken].sum())
        scaled = pixel_info_nce(rows, labels, base_temperature=0.05, **options)
        torch.testing.assert_close(scaled, each[taken].mean() * 0.1 / 0.05)

    def test_empty_sets(self, backend, denominator):
        none, ids = torch.empty(0, 4), torch.empty(0, dtype=torch.long)
        options = {"denominator": denominator, "backend": backend}
        rows = torch.rand(3, 4, requires_grad=True)
        labels = torch.tensor([0, 0, 1])
        assert pixel_info_nce(none, ids, **options) == 0
        assert pixel_info_nce(none, ids, rows, labels, **options) == 0
        loss = pixel_info_nce(rows, labels, none, ids, **options)
        loss.backward()
        assert loss == 0
        assert not rows.grad.any()
        both = pixel_info_nce(rows, labels, none, ids, include_anchors=True, **options)
        torch.testing.assert_close(both, pixel_info_nce(rows, labels, **options))


@pytest.mark.parametrize("backend", BACKENDS)
def test_prototypes_are_keys(backend):
    rows = F.normalize(torch.randn(9, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, -1])
    prototypes = F.normalize(rows[:4] + 0.1, dim=1)
    seen = torch.tensor([0, 1, -1, 3])  # class 2 has no prototype yet
    loss = pixel_info_nce(rows, labels, prototypes, seen, temperature=0.5, backend=backend)
    logits = (rows @ prototypes.T / 0.5).masked_fill(seen < 0, float("-inf"))
    taken = (labels >= 0) & (labels != 2)
    torch.testing.assert_close(loss, F.cross_entropy(logits[taken], labels[taken]))


def test_errors_name_the_mistake(unit_rows):
    rows, labels = unit_rows(6, 4, 2)
    for match, call in {
        "float matrix": lambda: pixel_info_nce(rows.view(1, 6, 4), labels),
        "6 integers": lambda: pixel_info_nce(rows, labels[:5]),
        "integers": lambda: pixel_info_nce(rows, labels.double()),
        "columns": lambda: pixel_info_nce(rows, labels, rows[:, :3], labels),
        "belong together": lambda: pixel_info_nce(rows, labels, rows),
        "temperature": lambda: pixel_info_nce(rows, labels, temperature=0),
        "did you mean 'negatives'": lambda: pixel_info_nce(rows, labels, denominator="negative"),
        "did you mean 'own_image'": lambda: pixel_info_nce(rows, labels, negatives="own_images"),
        "needs anchor_images_N": lambda: pixel_info_nce(rows, labels, negatives="own_image"),
        "did you mean 'mean'": lambda: pixel_info_nce(rows, labels, reduction="men"),
        "did you mean 'stream'": lambda: pixel_info_nce(rows, labels, backend="steam"),
        "without keys": lambda: pixel_info_nce(rows, labels, include_anchors=False),
        "NVIDIA GPU": lambda: pixel_info_nce(rows, labels, backend="triton"),
    }.items():
        with pytest.raises(ConfigError, match=match):
            call()


class TestPixelInfoNCE:
    def test_dense_maps_are_rows(self):
        rng = torch.Generator().manual_seed(2)
        maps = torch.randn(2, 6, 5, 7, generator=rng)
        labels = torch.randint(0, 4, (2, 10, 14), generator=rng).to(torch.uint8)
        labels[:, :4] = 255
        loss = PixelInfoNCE(temperature=0.2)(maps, labels)
        rows = F.normalize(maps, dim=1).permute(0, 2, 3, 1).reshape(-1, 6)
        ids = labels[:, ::2, ::2].reshape(-1)
        expected = pixel_info_nce(rows, ids, temperature=0.2, ignore_index=255)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(PixelInfoNCE(temperature=0.2)(rows, ids), expected)

    def test_memory_counts_as_other_images_and_gets_no_gradient(self, unit_rows):
        rng = torch.Generator().manual_seed(2)
        maps = torch.randn(2, 6, 4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
        labels = torch.randint(0, 3, (2, 4, 4), generator=rng)
        memory, ids = unit_rows(20, 6, 3)
        memory.requires_grad_()
        module = PixelInfoNCE(negatives="own_image")
        loss = module(maps, labels, memory * 3, ids)
        loss.backward()
        assert memory.grad is None
        assert maps.grad.any()
        rows = F.normalize(maps, dim=1).permute(0, 2, 3, 1).reshape(-1, 6)
        images = torch.tensor([0, 1]).repeat_interleave(16)
        expected = pixel_info_nce(
            rows,
            labels.flatten(),
            torch.cat([rows, memory]),
            torch.cat([labels.flatten(), ids]),
            self_index_N=torch.arange(32),
            negatives="own_image",
            anchor_images_N=images,
            key_images_K=torch.cat([images, torch.full((20,), 5)]),
            backend="naive",
        )
        torch.testing.assert_close(loss, expected)

    def test_weights_of_pixels(self):
        rng = torch.Generator().manual_seed(2)
        maps = torch.randn(1, 4, 3, 3, generator=rng)
        labels = torch.randint(0, 2, (1, 3, 3), generator=rng)
        weights = torch.rand(1, 3, 3, generator=rng)
        each = PixelInfoNCE(reduction="none")(maps, labels)
        loss = PixelInfoNCE()(maps, labels, weights=weights)
        torch.testing.assert_close(loss, (each * weights.flatten()).sum() / weights.sum())

    def test_maps_that_do_not_fit(self):
        with pytest.raises(ConfigError, match="do not fit"):
            PixelInfoNCE()(torch.rand(2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))

    def test_repr_shows_the_formula(self):
        assert "temperature=0.1, denominator='negatives'" in repr(PixelInfoNCE())

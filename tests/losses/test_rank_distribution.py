from itertools import permutations

import pytest
import torch
from benchmarks.opcount import OpCount

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import (
    rank_consistency,
    rank_divergence,
    rank_log_probabilities,
)


def kl(p, q):
    p, q = torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64)
    return (p * (p / q).log()).sum().item()


def logs(*values):
    return torch.tensor(values, dtype=torch.float64).log()


def enumerated(teacher, student):
    """The divergence over all orders, every probability a product of shares."""
    total = 0.0
    for order in permutations(range(teacher.shape[-1])):
        chances = []
        for logits in (teacher, student):
            placed = logits[..., list(order)]
            left = [placed[..., n:] for n in range(len(order))]
            chances.append(torch.stack([p.log_softmax(-1)[..., 0] for p in left]).sum(0))
        total = total + chances[0].exp() * (chances[0] - chances[1])
    return total


def maps(seed=0, batch=2, width=6, size=(5, 7), dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    weak = torch.randn(batch, width, *size, generator=generator, dtype=dtype)
    strong = weak + 0.5 * torch.randn(weak.shape, generator=generator, dtype=dtype)
    order = torch.rand(batch, size[0] * size[1], generator=generator).argsort(1)
    return scale * strong, scale * weak, order[:, :9]


class TestOrders:
    def test_two_items(self):
        found = rank_log_probabilities(logs(0.75, 0.25)).exp()
        torch.testing.assert_close(found, logs(0.75, 0.25).exp())

    def test_three_items(self):
        found = rank_log_probabilities(logs(0.5, 0.3, 0.2)).exp()
        expected = [0.3, 0.2, 0.2142857, 0.0857143, 0.125, 0.075]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))

    def test_four_items_of_a_published_pixel(self):
        found = rank_log_probabilities(logs(0.99462, 0.0050432, 3.2623e-4, 4.9578e-6)).exp()
        assert found[0].item() == pytest.approx(0.91936, abs=5e-6)
        assert found[1].item() == pytest.approx(0.01397, abs=5e-6)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 1e4, 1e30])
    def test_probabilities_sum_to_one_at_any_scale(self, scale):
        logits = scale * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
        total = rank_log_probabilities(logits).exp().sum(-1)
        torch.testing.assert_close(total, torch.ones(50), rtol=0, atol=1e-5)


class TestDivergence:
    def test_two_items(self):
        student = logs(0.5, 0.5).requires_grad_()
        loss = rank_divergence(logs(0.75, 0.25), student)
        assert loss.item() == pytest.approx(0.130812, abs=1e-6)
        loss.backward()
        assert student.grad.tolist() == pytest.approx([-0.25, 0.25])

    def test_three_items(self):
        teacher = logs(0.5, 0.3, 0.2)
        assert rank_divergence(teacher, torch.zeros(3)).item() == pytest.approx(0.113807, abs=1e-6)
        found = rank_divergence(teacher, logs(0.2, 0.5, 0.3)).item()
        sets = (
            kl([0.5, 0.3, 0.2], [0.2, 0.5, 0.3])
            + 0.5 * kl([0.6, 0.4], [0.625, 0.375])
            + 0.3 * kl([5 / 7, 2 / 7], [0.4, 0.6])
            + 0.2 * kl([0.625, 0.375], [2 / 7, 5 / 7])
        )
        assert found == pytest.approx(0.334636, abs=1e-6)
        assert found == pytest.approx(sets)

    @pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
    def test_equals_the_sum_over_all_orders(self, k):
        generator = torch.Generator().manual_seed(k)
        teacher = 3 * torch.randn(2, 7, k, generator=generator, dtype=torch.float64)
        student = torch.randn(2, 7, k, generator=generator, dtype=torch.float64).requires_grad_()
        weights = torch.rand(2, 7, generator=generator, dtype=torch.float64)
        found, expected = rank_divergence(teacher, student), enumerated(teacher, student)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        gradients = [
            torch.autograd.grad((part * weights).sum(), student)[0] for part in (found, expected)
        ]
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)

    def test_the_gradient_at_the_largest_k(self):
        generator = torch.Generator().manual_seed(0)
        teacher = 3 * torch.randn(2, 8, generator=generator, dtype=torch.float64)
        student = torch.randn(2, 8, generator=generator, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda own: rank_divergence(teacher, own), student)

    def test_a_constant_a_pixel_changes_nothing(self):
        teacher, student = torch.randn(2, 9, 4, dtype=torch.float64)
        plain = rank_divergence(teacher, student)
        moved = rank_divergence(teacher + 1000, student - 300 * torch.rand(9, 1).double())
        torch.testing.assert_close(moved, plain)

    def test_float32_keeps_huge_logits(self):
        teacher, student = 1000 + 100 * torch.randn(2, 50, 4)
        found = rank_divergence(teacher, student)
        assert found.dtype == torch.float32
        expected = enumerated(teacher.double(), student.double())
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)

    def test_it_is_zero_for_equal_distributions_alone(self):
        teacher = torch.randn(200, 5)
        assert rank_divergence(teacher, teacher).abs().max() == 0
        other = teacher + torch.randn(200, 5)
        assert (rank_divergence(teacher, other) > 1e-4).all()
        assert (rank_divergence(teacher, teacher + 1e-3 * torch.randn(200, 5)) > -1e-6).all()

    def test_missing_items_are_as_if_they_were_not_there(self):
        teacher, student = torch.randn(2, 20, 5, dtype=torch.float64)
        student.requires_grad_()
        shorter = student[:, [0, 2, 3]]
        teacher[:, [1, 4]] = -torch.inf
        found, expected = (
            rank_divergence(teacher, student),
            rank_divergence(teacher[:, [0, 2, 3]], shorter),
        )
        torch.testing.assert_close(found, expected)
        gradient = torch.autograd.grad(found.sum(), student)[0]
        torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), student)[0])
        assert gradient[:, [1, 4]].abs().max() == 0

    def test_fewer_than_two_items_give_zero(self):
        student = torch.randn(2, 4, requires_grad=True)
        teacher = torch.full((2, 4), -torch.inf)
        teacher[1, 2] = 3.0
        loss = rank_divergence(teacher, student)
        loss.sum().backward()
        assert loss.tolist() == [0, 0]
        assert student.grad.abs().max() == 0
        assert rank_divergence(torch.ones(2, 1), torch.ones(2, 1)).tolist() == [0, 0]

    def test_parts_of_the_rows_make_up_the_whole(self, monkeypatch):
        teacher, student = torch.randn(2, 3, 50, 6, dtype=torch.float64)
        whole = rank_divergence(teacher, student)
        monkeypatch.setattr("pixelcontrast.losses.rank_distribution._CHUNK", 400)
        torch.testing.assert_close(rank_divergence(teacher, student), whole)


class TestConsistency:
    def test_it_is_the_divergence_over_the_teachers_most_similar_landmarks(self):
        strong, weak, index = maps()
        found = rank_consistency(strong, weak, index, k=3)
        total, alike = [], []
        for s, w, at in zip(strong.flatten(2), weak.flatten(2), index, strict=True):
            for p in range(s.shape[1]):
                teacher, student = w[:, at].t() @ w[:, p], s[:, at].t() @ s[:, p]
                best = teacher.argsort(descending=True)[:3]
                total.append(enumerated(teacher[best], student[best]))
                alike.append(student[best].tolist() == sorted(student[best].tolist())[::-1])
        assert found.loss.item() == pytest.approx(torch.stack(total).mean().item())
        assert found.agreement.item() == pytest.approx(sum(alike) / len(alike))

    def test_equal_views_cost_nothing(self):
        _, weak, index = maps(dtype=torch.float32)
        strong = weak.clone().requires_grad_()
        found = rank_consistency(strong, weak, index)
        found.loss.backward()
        assert found.loss.item() < 1e-6
        assert strong.grad.norm() < 1e-5
        assert found.agreement == 1

    def test_gradient_reaches_the_student_alone_through_pixels_and_landmarks(self):
        strong, weak, index = maps()
        strong.requires_grad_()
        weak.requires_grad_()
        whole, pixels = (
            torch.autograd.grad(
                rank_consistency(strong, weak, index, detach_landmarks=detach).loss,
                (strong, weak),
                allow_unused=True,
            )
            for detach in (False, True)
        )
        assert whole[1] is None
        rest = (whole[0] - pixels[0]).flatten(2).abs().sum(1)
        touched = torch.zeros_like(rest, dtype=torch.bool).scatter(1, index, True)
        assert ((rest > 1e-9) == touched).all()

    def test_the_gradient_is_the_derivative(self):
        strong, weak, index = maps(size=(2, 5))
        function = lambda own: rank_consistency(own, weak, index).loss  # noqa: E731
        assert torch.autograd.gradcheck(function, strong.requires_grad_())

    def test_the_order_of_landmarks_is_of_no_importance(self):
        strong, weak, index = maps()
        first = rank_consistency(strong, weak, index).loss
        torch.testing.assert_close(rank_consistency(strong, weak, index.flip(1)).loss, first)

    def test_a_batch_is_the_pixel_weighted_mean_of_its_images(self):
        strong, weak, index = maps()
        valid = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
        whole = rank_consistency(strong, weak, index, valid=valid).loss
        counts = valid.sum((1, 2))
        alone = [
            rank_consistency(
                strong[i : i + 1], weak[i : i + 1], index[i : i + 1], valid=valid[i : i + 1]
            ).loss
            for i in range(2)
        ]
        expected = (alone[0] * counts[0] + alone[1] * counts[1]) / counts.sum()
        torch.testing.assert_close(whole, expected)

    def test_pixels_that_do_not_count_may_be_anything(self):
        strong, weak, index = maps()
        valid = torch.ones(2, 5, 7, dtype=torch.bool)
        corner = next(p for p in range(35) if p not in index[0].tolist())
        valid[0, corner // 7, corner % 7] = False
        plain = rank_consistency(strong, weak, index, valid=valid).loss
        strong[0, :, corner // 7, corner % 7] = 1e6
        torch.testing.assert_close(rank_consistency(strong, weak, index, valid=valid).loss, plain)

    @pytest.mark.parametrize("mode", ["rank", "correlation"])
    def test_missing_landmarks_are_left_out(self, mode):
        strong, weak, index = maps()
        strong.requires_grad_()
        present = torch.ones_like(index, dtype=torch.bool)
        present[0, 3:] = False
        present[1, 1:] = False  # one landmark: nothing to rank, the image does not count
        found = rank_consistency(strong, weak, index, present=present, mode=mode).loss
        expected = rank_consistency(strong[:1], weak[:1], index[:1, :3], mode=mode).loss
        torch.testing.assert_close(found, expected)
        assert torch.autograd.grad(found, strong)[0][1].abs().sum() == 0

    @pytest.mark.parametrize("mode", ["rank", "correlation"])
    def test_nothing_to_rank_gives_an_attached_zero(self, mode):
        strong, weak, index = maps()
        strong.requires_grad_()
        none = torch.zeros_like(index, dtype=torch.bool)
        found = rank_consistency(strong, weak, index, present=none, mode=mode)
        found.loss.backward()
        assert found.loss == 0
        assert strong.grad.abs().sum() == 0

    def test_correlation_compares_all_landmarks(self):
        strong, weak, index = maps()
        found = rank_consistency(strong, weak, index, mode="correlation").loss
        shares = []
        for part in (weak.flatten(2), strong.flatten(2)):
            vectors = part.gather(2, index[:, None].expand(-1, 6, -1))
            shares.append(torch.einsum("bfp,bfn->bpn", part, vectors).log_softmax(2))
        expected = (shares[0].exp() * (shares[0] - shares[1])).sum(2).mean()
        torch.testing.assert_close(found, expected)

    def test_a_landmark_can_be_kept_from_ranking_itself(self):
        strong, weak, index = maps()
        only = torch.zeros(2, 35, dtype=torch.bool).scatter(1, index[:, :1], True).view(2, 5, 7)
        found = rank_consistency(strong, weak, index, valid=only, exclude_self=True).loss
        others = rank_consistency(strong, weak, index[:, 1:], valid=only).loss
        torch.testing.assert_close(found, others)

    def test_temperature_and_normalisation(self):
        strong, weak, index = maps()
        plain = rank_consistency(strong, weak, index, temperature=4.0).loss
        torch.testing.assert_close(plain, rank_consistency(strong / 2, weak / 2, index).loss)
        unit = [part / part.norm(dim=1, keepdim=True) for part in (strong, weak)]
        expected = rank_consistency(*unit, index).loss
        torch.testing.assert_close(
            rank_consistency(strong, weak, index, normalise=True).loss, expected
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_features_are_compared_in_float32(self, dtype):
        strong, weak, index = (part for part in maps(scale=20.0))
        strong, weak = strong.to(dtype), weak.to(dtype)
        strong.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = rank_consistency(strong, weak, index)
        expected = rank_consistency(strong.float(), weak.float(), index)
        assert found.loss.dtype == torch.float32
        assert torch.equal(found.loss, expected.loss)
        found.loss.backward()
        assert strong.grad.dtype == dtype
        assert strong.grad.isfinite().all()

    def test_scaling_features_keeps_the_loss_finite(self):
        strong, weak, index = maps(dtype=torch.float32, scale=100.0)
        assert rank_consistency(strong, weak, index).loss.isfinite()

    def test_fewer_landmarks_than_ranks(self):
        strong, weak, index = maps()
        found = rank_consistency(strong, weak, index[:, :3], k=8).loss
        torch.testing.assert_close(found, rank_consistency(strong, weak, index[:, :3], k=3).loss)
        assert rank_consistency(strong, weak, index[:, :1]).loss == 0

    @pytest.mark.parametrize("k", [1, 9])
    def test_k_out_of_range_is_an_error(self, k):
        with pytest.raises(ConfigError, match=f"{k} landmarks"):
            rank_consistency(*maps(), k=k)

    def test_nothing_forces_the_host_to_wait(self):
        strong, weak, index = maps(dtype=torch.float32)
        strong.requires_grad_()
        rank_consistency(strong, weak, index)  # the tables of sets are made once
        with OpCount() as count:
            rank_consistency(strong, weak, index, present=index >= 0).loss.backward()
        assert not count.forcing

    def test_equal_inputs_give_equal_bits(self):
        strong, weak, index = maps(dtype=torch.float32, size=(20, 20))
        assert torch.equal(
            rank_consistency(strong, weak, index).loss, rank_consistency(strong, weak, index).loss
        )

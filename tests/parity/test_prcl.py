"""PRCL against the authors' code (2210.14670, 2402.18117), and its faults mended."""

import pytest
import torch

from pixelcontrast.losses import (
    Distributions,
    distribution_info_nce,
    image_weighted_consistency,
    mutual_likelihood,
    pairwise_likelihood,
    pixel_cross_entropy,
)
from pixelcontrast.memory import GaussianPrototypes
from pixelcontrast.memory.prototypes import GaussianSums
from pixelcontrast.models import VarianceHead
from pixelcontrast.sampling import (
    ClassPool,
    gather_pixels,
    other_class_weights,
    virtual_points,
)

KINDS = {"mls_broadcast", "mls_prototype", "mls_pairwise", "loss", "head", "unsup", "gdp", "grcl"}
WIDE = torch.float64


def close(found, expected, rtol=1e-8, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def test_every_case_has_a_check(reference_cases):
    cases = reference_cases("prcl")
    assert {case.kind for case in cases} == KINDS
    assert len(cases) == 3 * len(KINDS)


def scores(case):
    inputs = [case.tensor(k, WIDE).requires_grad_() for k in ("mu0", "var0", "mu1", "var1")]
    found = mutual_likelihood(*inputs, reduction="mean")
    close(found, case.tensor("score_mean_official"))
    close(mutual_likelihood(*inputs), case.tensor("score_sum"))
    close(mutual_likelihood(*inputs, constant=True), case.tensor("score_sum_with_constant"))
    (found * case.tensor("upstream", WIDE)).sum().backward()
    for name, value in zip(("mu0", "var0", "mu1", "var1"), inputs, strict=True):
        close(value.grad, case.tensor(f"grad_{name}"))


@pytest.mark.reference("prcl", kind="mls_broadcast")
def test_scores_of_anchors_and_their_negatives(case):
    scores(case)


@pytest.mark.reference("prcl", kind="mls_prototype")
def test_scores_of_a_prototype(case):
    scores(case)


@pytest.mark.reference("prcl", kind="mls_pairwise")
def test_scores_of_pairs(case):
    scores(case)


@pytest.mark.reference("prcl", kind="mls_broadcast")
def test_contrast_has_the_gradient_of_the_scores(case):
    """One anchor a row against its first column as positive and the rest as negatives."""
    mean, variance = (case.tensor(k, WIDE).squeeze(1) for k in ("mu0", "var0"))
    others = Distributions(case.tensor("mu1", WIDE), case.tensor("var1", WIDE))
    results = []
    for chunked in (True, False):
        anchor = [part.clone().requires_grad_() for part in (mean, variance)]
        if chunked:
            rows, amount, _ = others.mean.shape
            index = torch.arange(rows * amount).view(rows, 1, amount)[..., 1:]
            losses = distribution_info_nce(
                Distributions(*(part[:, None] for part in anchor)),
                Distributions(others.mean[:, 0], others.variance[:, 0]),
                Distributions(*(part.flatten(0, 1) for part in others)),
                index,
                temperature=0.5,
            )[:, 0]
        else:
            logits = mutual_likelihood(*(part[:, None] for part in anchor), *others) / 0.5
            losses = logits.logsumexp(1) - logits[:, 0]
        losses.sum().backward()
        results.append((losses.detach(), *(part.grad for part in anchor)))
    for found, expected in zip(*results, strict=True):
        close(found, expected)


class Step:
    """One step of the released loss: everything but the random draws is our code."""

    def __init__(self, case, prefix, settings):
        self.case, self.prefix, self.settings = case, prefix, settings
        self.mean, self.variance = (self.get(k, WIDE).requires_grad_() for k in ("mu", "var"))
        onehot, mask = self.get("label_onehot"), self.get("mask")
        labels = onehot.argmax(1).masked_fill((onehot.sum(1) == 0) | (mask[:, 0] == 0), -1)
        self.labels = labels.flatten()
        chance = (self.get("prob") * onehot).sum(1).flatten()
        hard = chance < settings["strong_threshold"]
        self.pool = ClassPool.build(self.labels, hard, num_classes=onehot.shape[1])
        self.present = self.pool.sizes > 0
        self.active = self.present & (self.pool.hard_sizes > 0)
        self.present_class = self.get("present_class")
        self.active_class = self.get("active_class")
        assert self.present.nonzero()[:, 0].tolist() == self.present_class.tolist()
        assert self.active.nonzero()[:, 0].tolist() == self.active_class.tolist()

    def get(self, name, dtype=None):
        return self.case.tensor(self.prefix + name, dtype)

    def rows(self):
        return Distributions(
            *(part.detach().flatten(2).mT.flatten(0, 1) for part in (self.mean, self.variance))
        )

    def check_sampling(self, prototypes):
        similarity = pairwise_likelihood(prototypes.mean, prototypes.variance, reduction="mean")
        weights = other_class_weights(similarity / self.settings["temp"], self.present)
        present = self.present_class.tolist()
        for row, label in zip(self.get("sampling_prob_rotated"), self.active_class, strict=True):
            place = present.index(label)
            close(weights[label][present[place + 1 :] + present[:place]], row)
            assert weights[label].sum() == pytest.approx(1)

    def losses(self, prototypes, dtype=WIDE, reduction="mean", **virtual):
        anchor, negative = self.get("anchor_pixel"), self.get("negative_pixel")
        chosen = [
            gather_pixels(part, anchor.flatten()).view(*anchor.shape, -1)
            for part in (self.mean.to(dtype), self.variance.to(dtype))
        ]
        return distribution_info_nce(
            Distributions(*chosen),
            Distributions(*(part[self.active_class] for part in prototypes[:2])),
            Distributions(*(part.to(dtype) for part in self.rows())),
            negative,
            temperature=self.settings["temp"],
            reduction=reduction,
            **virtual,
        )

    def check_gradients(self, loss, rtol=1e-8, atol=1e-12):
        self.mean.grad = self.variance.grad = None
        loss.backward()
        close(self.mean.grad, self.get("grad_mu"), rtol, atol)
        close(self.variance.grad, self.get("grad_var"), rtol, atol)
        drawn = torch.zeros(len(self.labels), dtype=torch.bool)
        drawn[self.get("anchor_pixel").flatten()] = True
        for part in (self.mean, self.variance):
            rows = part.grad.flatten(2).mT.flatten(0, 1)
            assert not rows[~drawn].any()  # exactly zero where no anchor was drawn


@pytest.mark.reference("prcl", kind="loss")
def test_contrast_of_the_first_version(case):
    step = Step(case, "", case.meta["loss"])
    classes = step.present.numel()
    memory = GaussianPrototypes(classes, step.mean.shape[1])
    prototypes = memory.observe(*step.rows(), step.labels).gaussians()
    close(prototypes.mean[step.present], step.get("proto_mu"))
    close(prototypes.variance[step.present], step.get("proto_var"))
    assert step.pool.sizes.tolist() == step.get("pixels_per_class").tolist()
    assert step.pool.hard_sizes.tolist() == step.get("hard_pixels_per_class").tolist()
    check_draws(step)
    step.check_sampling(prototypes)
    losses = step.losses(prototypes)
    close(losses.mean(1), step.get("per_class_ce"))
    loss = losses.mean(1).sum() / step.present.sum()
    close(loss, step.get("loss"))
    step.check_gradients(loss)
    close(losses.mean(1).sum() / step.active.sum(), step.get("loss_divided_by_active"))
    summed = step.losses(prototypes, reduction="sum").mean(1).sum() / step.present.sum()
    close(summed, step.get("loss_sum_reduction"))
    single = step.losses(prototypes, torch.float32).mean(1).sum() / step.present.sum()
    assert single.dtype == torch.float32
    close(single, step.get("loss_float32_run"), rtol=1e-5)
    step.check_gradients(single, rtol=1e-3, atol=1e-8)


def check_draws(step):
    """The released numbers mean the same pixels in our pool: those of a class, hard ones first,
    in order of position. Negatives are sorted by class there, which changes no loss."""
    pool, present = step.pool, step.present_class.tolist()
    starts = pool.starts.tolist()
    for row, label in enumerate(step.active_class.tolist()):
        hard = pool.order[starts[2 * label] : starts[2 * label + 1]]
        assert torch.equal(hard[step.get("raw_anchor_draw")[row]], step.get("anchor_pixel")[row])
        place = present.index(label)
        others = torch.tensor(present[place + 1 :] + present[:place])
        pixels = [pool.order[starts[2 * c] : starts[2 * c + 2]].sort().values for c in others]
        negatives = step.get("negative_pixel")[row]
        assert torch.equal(torch.cat(pixels)[step.get("raw_negative_draw")[row]], negatives)
        drawn = others[step.get("sampled_class_rotated")[row]]
        assert torch.equal(drawn.sort(1).values, step.labels[negatives].sort(1).values)


@pytest.mark.reference("prcl", kind="grcl")
def test_contrast_of_the_journal_version(case):
    settings = case.meta["grcl"]
    memory = None
    for prefix in ("step0__", "step1__"):
        step = Step(case, prefix, settings)
        classes, dim = step.present.numel(), step.mean.shape[1]
        if memory is None:
            # Deviation: there every class starts as N(1, 1), a pixel nobody saw; ours as nothing.
            memory = GaussianPrototypes(classes, dim)
            ones = torch.ones(classes, dim, dtype=WIDE)
            memory.add(GaussianSums(ones, ones, torch.ones(classes, dtype=torch.bool)))
        memory.update(*step.rows(), step.labels)
        prototypes = memory.gaussians()
        close(prototypes.mean, step.get("gdp_mu_after"))
        close(prototypes.variance, step.get("gdp_var_after"))
        step.check_sampling(prototypes)
        points = []
        for row, label in enumerate(step.active_class):
            other = [c for c in range(classes) if c != label]
            noise = torch.zeros(settings["vn_per_class"], classes, dim, dtype=WIDE)
            noise[:, other] = step.get("vn_eps", WIDE)[row]
            drawn = virtual_points(
                prototypes.mean,
                prototypes.variance,
                noise,
                scale="exp-half-variance",
                radius=settings["radius"],
            )
            points.append(drawn.flatten(0, 1))
        there = torch.arange(classes) != step.active_class[:, None]
        losses = step.losses(
            prototypes,
            virtual_GVD=torch.stack(points),
            virtual_mask_GV=there[:, None].expand(-1, settings["vn_per_class"], -1).flatten(1),
        )
        close(losses.mean(1), step.get("per_class_ce"))
        loss = losses.mean(1).sum() / step.present.sum()
        close(loss, step.get("loss"))
        step.check_gradients(loss)


@pytest.mark.reference("prcl", kind="gdp")
def test_prototypes_and_virtual_negatives(case):
    settings = case.meta["gdp"]
    steps, classes, dim = case.arrays["local_mu"].shape
    ours, prior = GaussianPrototypes(classes, dim), GaussianPrototypes(classes, dim)
    ones = torch.ones(classes, dim, dtype=WIDE)
    prior.add(GaussianSums(ones, ones, torch.ones(classes, dtype=torch.bool)))
    for step in range(steps):
        present = case.tensor("present")[step]
        labels = torch.where(present, torch.arange(classes), -1)
        local = [case.tensor(f"local_{k}", WIDE)[step].nan_to_num(1.0) for k in ("mu", "var")]
        ours.update(*local, labels)
        prior.update(*local, labels)
        found, seen = ours.gaussians(), case.tensor("seen")[step]
        assert torch.equal(found.valid, seen)
        close(found.mean[seen], case.tensor("global_mu")[step][seen])
        close(found.variance[seen], case.tensor("global_var")[step][seen])
        close(prior.gaussians().mean, case.tensor("global_mu_ones_prior")[step])
        close(prior.gaussians().variance, case.tensor("global_var_ones_prior")[step])
    names = {
        "variance": "vn_variance_scaled",
        "std": "vn_std_scaled",
        "exp-half-variance": "vn_exp_half_variance_scaled",
    }
    for scale, name in names.items():
        points = virtual_points(
            found.mean,
            found.variance,
            case.tensor("vn_eps", WIDE),
            scale=scale,
            radius=settings["beta"],
        )
        close(points[:, seen], case.tensor(name)[:, seen])
        assert case.tensor(name)[:, ~seen].isnan().all()


@pytest.mark.reference("prcl", kind="head")
def test_probability_head(case):
    x = case.tensor("x", WIDE).requires_grad_()
    first, second = case.tensor("param_fc1", WIDE), case.tensor("param_fc2", WIDE)
    head = VarianceHead(first.shape[1], second.shape[0], hidden=first.shape[0]).double()
    with torch.no_grad():
        head.first.copy_(first)
        head.second.copy_(second)
        head.gamma.copy_(case.tensor("param_gamma"))
        head.beta.copy_(case.tensor("param_beta"))
        head.first_norm.weight.copy_(case.tensor("param_bn1_weight"))
        head.first_norm.bias.copy_(case.tensor("param_bn1_bias"))
    variance = head(x)
    close(variance, case.tensor("var_train"))
    (variance * case.tensor("upstream", WIDE)).sum().backward()
    close(x.grad, case.tensor("grad_x_train"))
    close(head.gamma.grad, case.tensor("grad_gamma_train"))
    close(head.first.grad, case.tensor("grad_fc1_train"))
    for number, norm in ((1, head.first_norm), (2, head.second_norm)):
        close(norm.running_mean, case.tensor(f"bn{number}_running_mean_after"))
        close(norm.running_var, case.tensor(f"bn{number}_running_var_after"))
    close(head.eval()(x), case.tensor("var_eval_after_one_step"))


@pytest.mark.reference("prcl", kind="unsup")
def test_image_weighted_consistency(case):
    # Deviation: there pixels whose cross-entropy is exactly 0 leave the mean, and an image without
    # labels gives NaN; ours is the mean over all pixels with a label.
    logits = case.tensor("logits").requires_grad_()
    labels, confidence = case.tensor("pseudo_label"), case.tensor("confidence")
    valid = labels >= 0
    sure = confidence >= case.meta["unsup"]["threshold"]
    found = image_weighted_consistency(logits, labels, sure, valid)
    found.backward()
    close(found.double(), case.tensor("loss_valid_mean"), rtol=1e-5)
    close(logits.grad.double(), case.tensor("grad_logits_valid_mean"), rtol=1e-4, atol=1e-7)
    weight = (sure & valid).sum((1, 2)) / valid.sum((1, 2)).clamp_min(1)
    close(weight.double(), case.tensor("image_weight").nan_to_num(0.0), rtol=1e-6)
    entropy = pixel_cross_entropy(logits, labels) * valid
    close(entropy.double(), case.tensor("pixel_ce"), rtol=1e-4, atol=1e-5)
    nonzero = (case.tensor("pixel_ce") > 0).sum()
    released = found * valid.sum() / nonzero
    close(released.double(), case.tensor("loss_official"), rtol=1e-5)
    share = valid.sum() / nonzero
    close(logits.grad * share, case.tensor("grad_logits_official").float(), rtol=1e-4, atol=1e-7)

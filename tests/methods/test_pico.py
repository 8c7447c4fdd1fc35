import json
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from pixelcontrast.core.distributed import keep_out_of_ddp
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import SegOutput
from pixelcontrast.engine.train import train
from pixelcontrast.methods.base import Task
from pixelcontrast.methods.contrast import CONTRASTS, ContrastBatch
from pixelcontrast.methods.kept import KeptWatch
from pixelcontrast.methods.pico import PicoConfig, PicoContrast, PicoContrastConfig
from pixelcontrast.methods.pico_memory import PicoMemoryConfig, pixel_slots
from pixelcontrast.methods.pico_selection import (
    PicoSelectionConfig,
    PicoSynthesisConfig,
    contrast_with_selected,
)
from pixelcontrast.models import load_model
from pixelcontrast.sampling import draw_mixtures, mixed_vectors, select_keys
from tests.gloo import two_processes
from tests.methods.tester import MethodTester, _fixed_statistics, _half, _Losses, drawn_batch

OPTIONS = {"embedding": {"dim": 8}, "max_anchors": 128, "max_views": 20, "weight": 0.1}
MEMORY = {"pixels": 40, "pixels_per_image": 5, "max_regions": 8}


def l_nce(anchors, labels, sampled, made_up, temperature):
    """Equation 3 as loops: samples of every anchor as lists of vectors, in float64."""
    values = []
    for i in range(len(anchors)):
        positive, negative = sampled(i)
        if labels[i] < 0 or not positive:
            continue
        below = torch.stack([*negative, *made_up(i), *anchors[:0]]) if negative else None
        ups = torch.stack(positive) @ anchors[i] / temperature
        if below is None:
            values.append(torch.zeros((), dtype=torch.float64))
            continue
        downs = (below @ anchors[i] / temperature).exp().sum()
        values.append(-(ups.exp() / (ups.exp() + downs)).log().mean())
    return torch.stack(values).mean()


class TestPiCo(MethodTester):
    name = "pico"
    options = OPTIONS

    def test_the_contrast_term_is_the_papers_formula_on_its_anchors(self, monkeypatch):
        method = self.build(4)
        batch = self.batch(method, 4)
        seen = []
        contrast = PicoContrast.contrast
        monkeypatch.setattr(
            PicoContrast, "contrast", lambda self, *args: seen.append(args) or contrast(self, *args)
        )
        found = method.losses(batch).terms["contrast"]
        rows, labels = (t.detach() for t in seen[0])
        assert (labels >= 0).sum() > 50
        rows = rows.double()

        def others(i):
            return (
                [rows[j] for j in range(len(rows)) if labels[j] == labels[i] and j != i],
                [rows[j] for j in range(len(rows)) if -1 < labels[j] != labels[i]],
            )

        expected = 0.1 * l_nce(rows, labels, others, lambda i: [], method.config.temperature)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)

    def test_warm_up_costs_nothing_and_keeps_the_head_in_the_graph(self):
        method = self.build()
        object.__setattr__(method.config, "warmup_steps", 5)
        seen = []
        method.segmentor.embedding_head.register_forward_hook(lambda *args: seen.append(1))
        report = method.losses(self.batch(method))
        assert not seen
        assert report.terms["contrast"].item() == 0.0
        report.total.backward()
        for parameter in method.segmentor.embedding_head.parameters():
            assert torch.count_nonzero(parameter.grad) == 0

    def test_a_weight_of_zero_switches_the_head_off(self):
        method = self.build()
        object.__setattr__(method.config, "weight", 0.0)
        assert not method.contrast.needs_embedding(10)
        assert method.losses(self.batch(method)).terms["contrast"].item() == 0.0

    def test_anchors_prefer_wrongly_predicted_pixels(self):
        method = self.build(2)
        logits = torch.zeros(1, 2, 12, 16)
        logits[:, 0] = 1.0  # everything is predicted as class 0
        mask = torch.zeros(1, 12, 16, dtype=torch.uint8)
        mask[:, :, 8:] = 1
        draw = torch.Generator().manual_seed(0)
        pool = method.contrast.pool(SegOutput(logits, logits), mask, draw)
        anchors = method.contrast.anchors(pool, draw)
        labels = anchors.labels[anchors.valid]
        hard = anchors.hard[anchors.valid]
        assert set(labels.tolist()) == {0, 1}
        assert hard[labels == 1].all()
        assert not hard[labels == 0].any()

    def test_statistics_by_hand(self):
        term = build_term(PicoContrastConfig(max_anchors=64))
        labels = torch.tensor([0] * 6 + [2] * 10 + [255] * 8).view(1, 4, 6)
        stats = term(contrast_batch(bands(labels, 3, dim=3), labels)).stats
        assert stats["anchors"] == 16
        assert stats["anchors_per_class"].tolist() == [6, 0, 10]
        assert stats["anchor_classes"] == 2
        assert stats["positive_similarity"] == pytest.approx(1.0)
        assert stats["negative_similarity"] == pytest.approx(0.0, abs=1e-6)
        assert stats["empty_negative_share"] == 0
        alone = term(contrast_batch(bands(labels * 0, 3, dim=3), labels * 0)).stats
        assert alone["empty_negative_share"] == 1


class TestPiCoWithMemory(MethodTester):
    name = "pico"
    options: ClassVar = {
        **OPTIONS,
        "memory": MEMORY,
        "selection": {"positives": 16, "negatives": 32, "window": [0.0, 0.3]},
    }

    def test_two_processes_equal_one(self):
        """Losses, gradients and memory, over several steps."""
        one = remembered_steps(self.build(), lambda batch: batch)
        found = two_processes(two_process_steps, type(self))
        for name, expected in one.items():
            first, second = (torch.as_tensor(each[name]) for each in found)
            exact = name.endswith(("written", "filled", "images_seen"))
            tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-3, "atol": 2e-5}
            torch.testing.assert_close(first, second, rtol=0, atol=1e-6, msg=name)
            torch.testing.assert_close(first, expected, msg=name, **tolerance)
        assert one["state.pixels.written"].sum() > 100
        assert one["state.regions.filled"].sum() > 5

    @pytest.mark.slow
    def test_the_model_file_holds_neither_memory_nor_head(self, tiny, tmp_path):
        tiny["method"] = {"name": self.name, **self.options}
        run = train(tiny, out=tmp_path / "run")
        state = torch.load(run.last, weights_only=True)["state_dict"]
        written = state["contrast.memory.pixels.written"]
        assert written.sum() > 100
        line = json.loads(run.metrics.read_text().splitlines()[-2])
        assert 0 < line["stat/queue_fill"] <= 1
        assert len(line["stat/anchors_per_class"]) == len(written)
        names = [name for name, _ in load_model(run.model)[0].named_parameters()]
        assert names
        assert not [name for name in names if "memory" in name or "embedding" in name]


def two_process_steps(rank, tester):
    """`remembered_steps` as one of two processes, as arrays."""
    found = remembered_steps(tester().build(), lambda batch: _half(batch, rank))
    return {name: value.numpy() for name, value in found.items()}


def remembered_steps(method, share):
    """Losses, gradients and memory of three steps, each with images of its own."""
    _fixed_statistics(method)
    wrapped = _Losses(method)
    if torch.distributed.is_initialized():
        keep_out_of_ddp(wrapped)
        wrapped = DistributedDataParallel(wrapped)
    found = {}
    for step in range(3):
        method.batch_index = step
        batch = {"labeled": share(drawn_batch(method.streams[0], 3, seed=step))}
        method.zero_grad()
        loss = wrapped(batch)
        loss.backward()
        method.after_step()
        found[f"loss{step}"] = method.losses(batch).terms["contrast"].detach()
        method.contrast.memory._pixels_to_write.clear()
        method.contrast.memory._regions_to_write.clear()
    found |= {f"gradient.{n}": p.grad for n, p in method.named_parameters() if p.grad is not None}
    state = method.contrast.memory.state_dict()
    return found | {f"state.{name}": value for name, value in state.items()}


def build_term(config, classes=3, num_images=None, seed=0):
    """The term by itself, as a method of any kind would build it."""
    task = Task(classes, 255, total_steps=100, num_images=num_images)
    return PicoContrast(config, task, lambda purpose: generator_for("cpu", seed, purpose))


def bands(labels, classes, dim):
    """One-hot embeddings: pixel p of class c is e_c, and ignored ones something else."""
    ids = torch.where(labels < classes, labels, dim - 1).long()
    return F.one_hot(ids, dim).permute(0, 3, 1, 2).float()


def contrast_batch(embedding, labels, step=0, index=None, classes=3):
    logits = torch.zeros(len(labels), classes, *labels.shape[-2:], requires_grad=True)
    return ContrastBatch(
        student=SegOutput(logits, logits, embedding=embedding),
        labels=labels,
        labelled=len(labels),
        step=step,
        index=index,
    )


def with_memory(**options):
    """A small term with memory."""
    memory = {"pixels": 30, "pixels_per_image": 4, "regions": "off", **options.pop("memory", {})}
    options = {"max_anchors": 64, **options}
    return PicoContrastConfig(memory=PicoMemoryConfig(**memory), **options)


def random_images(seed=0, images=2, classes=3, dim=6, size=(6, 8)):
    """Embeddings that need a gradient, and labels with some ignored pixels."""
    g = torch.Generator().manual_seed(seed)
    raw = torch.randn(images, dim, *size, generator=g, requires_grad=True)
    labels = torch.randint(0, classes + 1, (images, *size), generator=g)
    return F.normalize(raw, dim=1), labels.masked_fill(labels == classes, 255), raw


def filled_term(config, steps=3, classes=3, **images):
    """A term that has seen a few batches."""
    term = build_term(config, classes, num_images=9)
    for step in range(steps):
        embedding, labels, _ = random_images(step, **images)
        index = torch.arange(len(labels)) + 2 * step
        term(contrast_batch(embedding, labels, index=index, classes=classes))
        term.after_step()
    return term


class TestWhatIsRemembered:
    @pytest.mark.parametrize("regions", ["image", "fifo", "off"])
    def test_every_stored_vector_is_of_its_class(self, regions):
        # Four horizontal bands of one class each; class 0 is one like any other.
        labels = torch.arange(4).repeat_interleave(3)[None, :, None].expand(2, 12, 5).clone()
        labels[:, ::3] = 255
        config = with_memory(
            embedding=head(5), memory={"regions": regions, "max_regions": 3, "pixels": 8}
        )
        term = build_term(config, classes=4)
        for _ in range(3):
            term(contrast_batch(bands(labels, 4, 5), labels, index=torch.tensor([0, 1]), classes=4))
            term.after_step()
        vectors, ids, valid = term.memory.keys()
        assert term.memory.pixels.count.tolist() == [8, 8, 8, 8]
        own = vectors[valid].gather(1, ids[valid][:, None])
        torch.testing.assert_close(own, torch.ones_like(own))
        expected = {"image": 2, "fifo": 3, "off": 0}[regions]
        assert term.memory.filled().tolist() == [8 + expected] * 4

    def test_nothing_is_written_before_the_step_is_done_and_everything_then(self):
        term = build_term(with_memory(embedding=head(6)))
        for seed in range(2):  # gradients of two batches are summed
            embedding, labels, _ = random_images(seed)
            loss = term(contrast_batch(embedding, labels)).terms["contrast"]
            assert not term.memory.pixels.written.any()
            loss.backward()
        term.after_step()
        assert term.memory.pixels.written.tolist() == [16, 16, 16]  # 4 a class and image
        term.after_step()
        assert term.memory.pixels.written.tolist() == [16, 16, 16]
        assert not term.memory.keys().vectors.requires_grad

    def test_an_image_overwrites_its_own_regions(self):
        config = with_memory(embedding=head(6), memory={"pixels": 0, "regions": "image"})
        term = build_term(config, num_images=5)
        for seed in range(2):
            embedding, labels, _ = random_images(seed, images=1)
            term(contrast_batch(embedding, labels, index=torch.tensor([3])))
            term.after_step()
        assert term.memory.filled().tolist() == [1, 1, 1]
        mean = embedding[0].flatten(1)[:, labels.flatten() == 1].mean(1)
        stored = term.memory.regions.keys().vectors.view(3, 5, 6)[1, 3]
        torch.testing.assert_close(stored, F.normalize(mean, dim=0).detach())

    @pytest.mark.parametrize("regions", ["image", "fifo"])
    def test_images_without_a_number_take_turns(self, regions):
        config = with_memory(embedding=head(6), memory={"regions": regions, "max_regions": 3})
        term = build_term(config)
        for seed in range(2):
            embedding, labels, _ = random_images(seed)
            term(contrast_batch(embedding, labels))
            term.after_step()
        assert term.memory.regions.filled[:-1].all()
        assert term.memory.images_seen == 4
        fourth = embedding[1].flatten(1)[:, labels[1].flatten() == 2].mean(1)
        stored = term.memory.regions.keys().vectors.view(3, 3, 6)[2, 0]
        torch.testing.assert_close(stored, F.normalize(fourth, dim=0).detach())

    def test_warm_up_fills_the_memory_while_the_loss_is_zero(self):
        term = build_term(with_memory(embedding=head(6), warmup_steps=3))
        embedding, labels, raw = random_images()
        report = term(contrast_batch(embedding, labels, step=2))
        term.after_step()
        assert report.terms["contrast"] == 0
        report.terms["contrast"].backward()
        assert raw.grad is not None
        assert not raw.grad.any()
        assert (term.memory.filled() == 8).all()
        assert term(contrast_batch(embedding, labels, step=3)).terms["contrast"] > 0

    def test_half_precision_storage(self):
        config = with_memory(embedding=head(6), memory={"storage": "fp16", "regions": "fifo"})
        half, full = (
            filled_term(c)
            for c in (config, with_memory(embedding=head(6), memory={"regions": "fifo"}))
        )
        assert half.memory.keys().vectors.dtype == torch.float16
        embedding, labels, _ = random_images(7)
        losses = [t(contrast_batch(embedding, labels)).terms["contrast"] for t in (half, full)]
        assert losses[0].dtype == torch.float32
        torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0)

    def test_share_of_filled_slots(self):
        term = build_term(
            with_memory(embedding=head(6), memory={"regions": "image", "max_regions": 4})
        )
        embedding, labels, _ = random_images()
        assert term(contrast_batch(embedding, labels)).stats["queue_fill"] == 0
        term.after_step()
        stats = term(contrast_batch(embedding, labels)).stats
        assert stats["queue_fill"] == pytest.approx(8 / 30)
        assert stats["region_fill"] == pytest.approx(2 / 4)


def head(dim):
    from pixelcontrast.models import EmbeddingConfig

    return EmbeddingConfig(dim=dim)


class TestContrastWithMemory:
    def run(self, term, embedding, labels):
        """The term's loss, and the anchors it was computed for."""
        seen = []
        contrast = term.contrast
        term.contrast = lambda *args: seen.append(args) or contrast(*args)
        report = term(contrast_batch(embedding, labels))
        return report, *(t.detach() for t in seen[0])

    def test_an_empty_memory_leaves_the_contrast_within_the_batch(self):
        plain = build_term(PicoContrastConfig(embedding=head(6), max_anchors=64))
        embedding, labels, raw = random_images()
        expected = plain(contrast_batch(embedding, labels)).terms["contrast"]
        gradient = torch.autograd.grad(expected, raw, retain_graph=True)[0]
        for strategy in ("all", "random", "hardest", "semi_hard"):
            selection = PicoSelectionConfig(strategy=strategy)
            term = build_term(with_memory(embedding=head(6), selection=selection))
            found = term(contrast_batch(embedding, labels)).terms["contrast"]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
            same = torch.autograd.grad(found, raw, retain_graph=True)[0]
            torch.testing.assert_close(same, gradient, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("mutual", [True, False])
    @pytest.mark.parametrize("strategy", ["all", "random", "hardest", "semi_hard"])
    def test_the_papers_formula_on_the_chosen_samples(self, strategy, mutual):
        selection = PicoSelectionConfig(strategy, positives=5, negatives=8, window=(0.0, 0.4))
        term = filled_term(
            with_memory(
                embedding=head(6),
                selection=selection,
                memory={"batch": mutual, "regions": "image", "max_regions": 7},
            )
        )
        embedding, labels, _ = random_images(9)
        report, rows, ids = self.run(term, embedding, labels)
        keys = term.memory.keys()
        chosen = [keys.labels == ids[:, None], (keys.labels != ids[:, None]) & keys.valid]
        mixed = [[] for _ in rows]
        if strategy != "all":
            found = select_keys(
                rows,
                ids,
                keys.vectors,
                keys.labels,
                positives=5,
                negatives=8,
                strategy=strategy,
                window=(0.0, 0.4),
                generator=generator_for("cpu", 0, "selection"),
            )
            chosen = [
                torch.zeros(len(rows), len(keys.valid), dtype=torch.bool).scatter(1, f.key, f.valid)
                for f in found
            ]
            mixture = draw_mixtures(
                found[1], pairs=2, with_anchor=2, generator=generator_for("cpu", 0, "synthesis")
            )
            vectors = mixed_vectors(mixture, rows, keys.vectors).double()
            mixed = [list(v[m]) for v, m in zip(vectors, mixture.valid, strict=True)]
            assert len(mixed[0]) == 4
        rows, table = rows.double(), keys.vectors.double()

        def sampled(i):
            positive, negative = (list(table[mask[i]]) for mask in chosen)
            if mutual:
                every = range(len(rows))
                positive += [rows[j] for j in every if ids[j] == ids[i] and j != i]
                negative += [rows[j] for j in every if -1 < ids[j] != ids[i]]
            return positive, negative

        expected = l_nce(rows, ids, sampled, lambda i: mixed[i], 0.1)
        found = report.terms["contrast"].double()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)

    def test_one_anchor_its_positive_its_negative_and_a_mixture(self):
        # Three orthogonal vectors: ln 2; with b = 0.25 the mixture would give 3.2435428.
        e = torch.eye(3)
        term = with_memory(embedding=head(3), memory={"pixels": 2, "batch": False})
        term = build_term(term, classes=2)
        term.memory.pixels.enqueue(e[1:], torch.tensor([0, 1]))
        values = {}
        for amount in (0, 1):
            values[amount] = contrast_with_selected(
                e[:1],
                torch.tensor([0]),
                term.memory.keys(),
                selection=PicoSelectionConfig(),
                synthesis=PicoSynthesisConfig(pairs=amount, with_anchor=amount),
                mutual=False,
                temperature=0.1,
                base_temperature=None,
                random=lambda purpose: generator_for("cpu", 0, purpose),
            ).item()
        assert values[0] == pytest.approx(0.693147181, rel=1e-6)
        # One negative makes no pair; with the anchor, cos = b / sqrt(b^2 + (1 - b)^2).
        weight = (
            0.5 * torch.rand((3, 1, 2), generator=generator_for("cpu", 0, "synthesis"))[2, 0, 1]
        )
        cosine = weight / (weight**2 + (1 - weight) ** 2).sqrt()
        assert values[1] == pytest.approx((2 + (10 * cosine).exp()).log().item(), rel=1e-5)

    @pytest.mark.parametrize("strategy", ["all", "semi_hard"])
    def test_class_0_is_a_class_like_any_other(self, strategy):
        # Three classes of two slots: every class meets ln(1 + 4 / e).
        e = torch.eye(3)
        for c in range(3):
            config = with_memory(
                embedding=head(3),
                temperature=1.0,
                selection=PicoSelectionConfig(strategy, window=(0.0, 1.0)),
                synthesis=PicoSynthesisConfig(0, 0),
                memory={"pixels": 2, "batch": False},
            )
            term = build_term(config)
            term.memory.pixels.enqueue(e.repeat(2, 1), torch.arange(3).repeat(2))
            loss = term.contrast(e[c : c + 1], torch.tensor([c]))
            assert loss.item() == pytest.approx(0.904832442, rel=1e-6)

    def test_unfilled_slots_never_take_part(self):
        config = with_memory(
            embedding=head(3),
            memory={"pixels": 5, "batch": False},
            selection=PicoSelectionConfig("semi_hard", window=(0.0, 1.0)),
            synthesis=PicoSynthesisConfig(0, 0),
        )
        term = build_term(config)
        term.memory.pixels.enqueue(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 1]))
        loss = term.contrast(torch.eye(3)[:1], torch.tensor([0]))
        assert loss.item() == pytest.approx(torch.tensor(-10.0).exp().mul(2).log1p().item())
        assert term.contrast(torch.eye(3)[2:], torch.tensor([2])) == 0  # no positive

    def test_memory_alone_is_zero_with_a_graph_until_it_holds_something(self):
        term = build_term(with_memory(embedding=head(6), memory={"batch": False}))
        embedding, labels, raw = random_images()
        report = term(contrast_batch(embedding, labels))
        assert report.terms["contrast"] == 0
        assert report.stats["empty_negative_share"] == 1
        report.terms["contrast"].backward()
        assert not raw.grad.any()
        term.after_step()
        report = term(contrast_batch(embedding, labels))
        assert report.terms["contrast"] > 0
        assert report.stats["empty_negative_share"] == 0

    def test_the_gradient_reaches_anchors_alone_and_is_tangent(self):
        term = filled_term(with_memory(embedding=head(6)))
        embedding, labels, raw = random_images(5)
        term(contrast_batch(embedding, labels)).terms["contrast"].backward()
        assert not raw.grad.permute(0, 2, 3, 1)[labels == 255].any()
        radial = (raw.grad * raw).sum(1)
        torch.testing.assert_close(radial, torch.zeros_like(radial), rtol=0, atol=1e-6)
        assert raw.grad.abs().sum() > 0.1

    @pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
    def test_hard_cases_stay_finite(self, temperature):
        config = with_memory(embedding=head(6), temperature=temperature, memory={"pixels": 2})
        embedding, labels, raw = random_images(3)
        one_class, ignored = labels * 0, labels * 0 + 255
        one_pixel = ignored.clone()
        one_pixel[0, 0, 0] = 1
        term = filled_term(config)
        for case in (labels, one_class, ignored, one_pixel):
            loss = term(contrast_batch(embedding, case)).terms["contrast"]
            gradient = torch.autograd.grad(loss, raw, retain_graph=True)[0]
            assert torch.isfinite(loss)
            assert torch.isfinite(gradient).all()
            term.after_step()

    def test_draws_depend_on_seed_and_position_alone(self):
        embedding, labels, _ = random_images(4)
        values = []
        for disturbance in range(2):
            torch.manual_seed(disturbance)
            term = filled_term(with_memory(embedding=head(6)))
            values.append(term(contrast_batch(embedding, labels)).terms["contrast"].item())
        assert values[0] == values[1]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_value_is_read_back_from_the_device(device, monkeypatch):
    monkeypatch.setattr(KeptWatch, "note", lambda *_: None)  # has its own test
    # Fake tensors have no values: whatever needs one raises.
    selection = PicoSelectionConfig(positives=8, negatives=12)
    memory = {"regions": "image", "max_regions": 4}
    term = build_term(with_memory(embedding=head(6), selection=selection, memory=memory))
    with FakeTensorMode(allow_non_fake_inputs=True):
        term.to(device)
        raw = torch.rand(2, 6, 6, 8, device=device, requires_grad=True)
        labels = torch.zeros(2, 6, 8, dtype=torch.uint8, device=device)
        logits = torch.rand(2, 3, 6, 8, device=device)
        for _ in range(2):
            report = term(
                ContrastBatch(
                    student=SegOutput(logits, logits, embedding=F.normalize(raw, dim=1)),
                    labels=labels,
                    labelled=2,
                    step=0,
                    index=torch.zeros(2, dtype=torch.int64, device=device),
                )
            )
            if device == "cpu":  # a backward pass on a GPU needs one
                report.terms["contrast"].backward()
            term.after_step()
        assert report.terms["contrast"].device.type == device


def test_a_contrast_that_never_starts_says_why():
    term = build_term(PicoContrastConfig(embedding=head(6), min_pixels=1000))
    term.started.patience = 2
    logits = torch.zeros(1, 3, 6, 8)
    embedding = F.normalize(torch.randn(1, 6, 6, 8), dim=1)
    output = SegOutput(logits, logits, embedding=embedding)
    labels = torch.zeros(1, 6, 8, dtype=torch.uint8)
    batch = ContrastBatch(output, labels, labelled=1, step=0)
    assert term(batch).terms["contrast"] == 0
    with pytest.warns(UserWarning, match="min_pixels = 1000 or more"):
        term(batch)


class TestAsPartOfAnotherMethod:
    def test_it_is_registered(self):
        assert CONTRASTS["pico"] == "pixelcontrast.methods.pico:PicoContrast"

    def test_pseudo_labelled_images_take_part_like_others(self):
        embedding, labels, raw = random_images(images=4)
        labels[2:, :3] = 255  # not trusted there
        logits = torch.zeros(4, 3, 6, 8, requires_grad=True)
        term = build_term(with_memory(embedding=head(6), memory={"regions": "image"}), num_images=2)
        batch = ContrastBatch(
            student=SegOutput(logits, logits, embedding=embedding),
            labels=labels,
            labelled=2,
            step=0,
            confidence=torch.rand(4, 6, 8),
        )
        report = term(batch)
        report.terms["contrast"].backward()
        term.after_step()
        gradient = raw.grad.permute(0, 2, 3, 1)
        assert gradient[2:, 3:].any()
        assert not gradient[labels == 255].any()
        assert (term.memory.pixels.count == 16).all()

    def test_a_network_that_did_not_embed_gives_a_zero_with_a_graph(self):
        term = build_term(PicoContrastConfig(warmup_steps=5))
        labels = torch.zeros(1, 6, 8)
        batch = contrast_batch(None, labels)
        assert not term.needs_embedding(batch.step)
        loss = term(batch).terms["contrast"]
        loss.backward()
        assert loss == 0
        assert batch.student.logits.grad is not None


class TestSettings:
    def test_slots_of_the_paper(self):
        task = Task(19, 255, 1, num_images=2975)
        assert pixel_slots(PicoMemoryConfig(), task) == 29_750
        assert pixel_slots(PicoMemoryConfig(max_pixels=10_000), task) == 10_000
        assert pixel_slots(PicoMemoryConfig(pixels=123), task) == 123
        term = build_term(PicoContrastConfig(embedding=head(4), memory=PicoMemoryConfig()), 3, 7)
        assert term.memory.pixels.capacity.tolist() == [70, 70, 70]
        assert term.memory.regions.images == 7

    @pytest.mark.parametrize("memory", [{}, {"pixels": 5}])
    def test_sizes_that_depend_on_an_unknown_number_of_images(self, memory):
        config = PicoContrastConfig(embedding=head(4), memory=PicoMemoryConfig(**memory))
        with pytest.raises(ConfigError, match="labelled images"):
            build_term(config)

    @pytest.mark.parametrize(
        ("match", "make"),
        [
            ("remembers nothing", lambda: PicoMemoryConfig(pixels=0, regions="off")),
            ("positive", lambda: PicoMemoryConfig(pixels_per_image=0)),
            ("positive", lambda: PicoMemoryConfig(pixels=-1)),
            ("window", lambda: PicoSelectionConfig(window=(0.3, 0.2))),
            ("at least one", lambda: PicoSelectionConfig(negatives=0)),
            ("negative number", lambda: PicoSynthesisConfig(pairs=-1)),
            ("there is none", lambda: PicoConfig(selection=PicoSelectionConfig("random"))),
            ("there is none", lambda: PicoConfig(synthesis=PicoSynthesisConfig(0, 0))),
            (
                "selects none",
                lambda: PicoConfig(
                    memory=PicoMemoryConfig(),
                    selection=PicoSelectionConfig("all"),
                    synthesis=PicoSynthesisConfig(pairs=4),
                ),
            ),
        ],
    )
    def test_settings_that_make_no_sense_are_refused(self, match, make):
        with pytest.raises(ConfigError, match=match):
            make()

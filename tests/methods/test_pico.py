import torch
import torch.nn.functional as F

from pixelcontrast.core.types import SegOutput
from pixelcontrast.methods.pico import PiCo
from tests.methods.tester import MethodTester

OPTIONS = {"embedding": {"dim": 8}, "max_anchors": 128, "max_views": 20, "weight": 0.1}


class TestPiCo(MethodTester):
    name = "pico"
    options = OPTIONS

    def test_the_contrast_term_is_the_papers_formula_on_its_anchors(self, monkeypatch):
        method = self.build(4)
        batch = self.batch(method, 4)
        chosen = []
        anchors = PiCo._anchors
        monkeypatch.setattr(
            PiCo, "_anchors", lambda *args: chosen.append(anchors(*args)) or chosen[-1]
        )
        embeddings = []
        method.segmentor.embedding_head.register_forward_hook(
            lambda module, args, output: embeddings.append(output)
        )
        found = method.losses(batch).terms["contrast"]
        sample = chosen[0]
        rows = embeddings[0].permute(0, 2, 3, 1).flatten(0, 2)[sample.index[sample.valid]].double()
        labels = sample.labels[sample.valid]
        similarity = rows @ rows.T / method.config.temperature
        values = []
        for i in range(len(rows)):
            positive = [j for j in range(len(rows)) if labels[j] == labels[i] and j != i]
            negative = labels != labels[i]
            if positive:
                below = similarity[i][negative].logsumexp(0)
                values.append(F.softplus(below - similarity[i][positive]).mean())
        expected = 0.1 * torch.stack(values).mean()
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

    def test_anchors_prefer_wrongly_predicted_pixels(self):
        method = self.build(2)
        logits = torch.zeros(1, 2, 12, 16)
        logits[:, 0] = 1.0  # everything is predicted as class 0
        mask = torch.zeros(1, 48, 64, dtype=torch.uint8)
        mask[:, :, 32:] = 1
        embedding = torch.zeros(1, 8, 12, 16)
        anchors = method._anchors(SegOutput(logits, logits), embedding, mask)
        labels = anchors.labels[anchors.valid]
        hard = anchors.hard[anchors.valid]
        assert set(labels.tolist()) == {0, 1}
        assert hard[labels == 1].all()
        assert not hard[labels == 0].any()

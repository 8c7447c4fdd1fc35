from typing import ClassVar

import torch
import torch.nn.functional as F

from tests.methods.tester import MethodTester


class TestFixMatch(MethodTester):
    name = "fixmatch"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("strong",)

    def test_the_loss_is_the_mean_of_both_views(self, monkeypatch):
        method = self.build()
        batch = self.batch(method)
        whole = torch.ones(4, 48, 64, dtype=torch.bool)
        monkeypatch.setattr(method, "cutmix_keep", lambda rest, purpose: whole)
        outputs = []
        method.segmentor.register_forward_hook(lambda m, args, output: outputs.append(output))
        terms = method.losses(batch).terms

        def up(logits):
            return F.interpolate(logits, (48, 64), mode="bilinear")

        labelled, weak = up(outputs[0].logits).split(4)
        expected = F.cross_entropy(labelled, batch["labeled"].mask.long()) / 2
        torch.testing.assert_close(terms["ce"], expected)
        expected = F.cross_entropy(up(outputs[1].logits), weak.argmax(1)) / 2
        torch.testing.assert_close(terms["strong"], expected)

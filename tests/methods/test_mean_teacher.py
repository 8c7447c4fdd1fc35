from typing import ClassVar

import torch
import torch.nn.functional as F

from pixelcontrast.data.mixing import partners
from tests.methods.tester import MethodTester


class TestMeanTeacher(MethodTester):
    name = "mean_teacher"
    options: ClassVar[dict] = {"threshold": 0.0}
    may_rise = ("consistency",)

    def test_the_consistency_is_the_squared_distance_to_the_mixed_teacher(self, monkeypatch):
        method = self.build()
        batch = self.batch(method)
        keep = torch.ones(4, 48, 64, dtype=torch.bool)
        keep[:, 5:20, 10:40] = False
        monkeypatch.setattr(method, "cutmix_keep", lambda rest, purpose: keep)
        outputs = []
        method.segmentor.register_forward_hook(lambda m, args, output: outputs.append(output))
        found = method.losses(batch).terms["consistency"]
        told = method.teacher(batch["unlabeled"].image).logits
        soft = F.interpolate(told, (48, 64), mode="bilinear").softmax(1)
        soft = torch.where(keep[:, None], soft, soft[partners(4)])
        own = F.interpolate(outputs[0].logits[4:], (48, 64), mode="bilinear").softmax(1)
        expected = (own - soft).square().sum(1).mean()
        torch.testing.assert_close(found, expected)
        for threshold in (0.4, 0.5):  # the share of sure pixels weights all of them
            object.__setattr__(method.config, "threshold", threshold)
            share = (soft.amax(1) >= threshold).float().mean()
            again = method.losses(batch).terms["consistency"]
            torch.testing.assert_close(again, share * expected, rtol=1e-3, atol=1e-6)

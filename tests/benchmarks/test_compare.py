import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import TINY

from pixelcontrast.engine.scoring import score_run

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
compare = pytest.importorskip("compare")


def test_the_last_step_is_scored_with_its_own_weights(scenes, tmp_path):
    from pixelcontrast.engine.train import train

    tree = {**TINY, "name": "tiny", "data": {**TINY["data"], "root": str(scenes)}}
    tree["method"] = {"name": "supervised"}
    tree["train"] = {**TINY["train"], "steps": 2, "validate_every": 2, "ema": None}
    run = train(tree, out=tmp_path / "run")  # keeps the last step, the only one it looks at
    kept = score_run(run, split="test", features=None).scores.miou
    assert compare.at_the_end(run) == pytest.approx(kept)

    checkpoint = torch.load(run.last, weights_only=True)
    for value in checkpoint["state_dict"].values():
        value.zero_()  # all logits are equal: class 0 everywhere
    torch.save(checkpoint, run.last)
    assert compare.at_the_end(run) != pytest.approx(kept)

import runpy
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "pixel_contrast_in_a_plain_loop.py"


def test_the_example_runs_and_learns(capsys):
    pytest.importorskip("segmentation_models_pytorch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = runpy.run_path(str(EXAMPLE))
    lines = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in lines]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert names["head"].weight.grad.abs().sum() > 0

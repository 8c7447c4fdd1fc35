import pytest
import torch
from benchmarks.packaged_weights import renamed
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_weights_come_in_the_order_of_the_layers():
    theirs = {f"_{name}": torch.rand(value.shape) for name, value in network().state_dict().items()}
    ours = renamed(theirs, network())
    assert torch.equal(ours["1.running_var"], theirs["_1.running_var"])
    network().load_state_dict(ours)


def test_weights_of_another_network_are_refused():
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(SystemExit, match=r"0\.weight .*3, 3.* is not 0\.weight .*1, 1"):
        renamed(other.state_dict(), network())

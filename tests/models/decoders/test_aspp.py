import pytest
import torch
from torch import nn

from pixelcontrast.models.decoders.aspp import ASPP, SmallBatchNorm


@pytest.mark.parametrize(
    ("stride", "rates"), [(32, (3, 6, 9)), (16, (6, 12, 18)), (8, (12, 24, 36)), (14, (7, 14, 21))]
)
def test_rates_cover_the_same_part_of_the_image(stride, rates):
    aspp = ASPP(4, 4, stride)
    assert aspp.rates == rates
    assert [branch[0].dilation[0] for branch in aspp.branches[1:]] == list(rates)


def test_pooled_branch_sees_the_whole_image():
    aspp = ASPP(3, 32, 16).eval()
    x = torch.randn(1, 3, 5, 40)
    y = x.clone()
    y[..., 39] += 10  # beyond the reach of the largest rate from column 0
    assert not torch.equal(aspp(x)[..., 0], aspp(y)[..., 0])


def test_norm_equals_batch_norm_where_that_exists():
    torch.manual_seed(0)
    ours, theirs = SmallBatchNorm(6), nn.BatchNorm2d(6)
    for _ in range(3):
        x = torch.randn(2, 6, 1, 1)
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_norm_of_one_value_uses_the_running_statistics_and_keeps_them():
    norm = SmallBatchNorm(3)
    norm(torch.randn(8, 3, 1, 1))
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    x = torch.randn(1, 3, 1, 1)
    out = norm(x)
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    assert torch.equal(out, norm.eval()(x))
    out.sum().backward()
    assert norm.weight.grad.any()


def test_norm_can_be_synchronised():
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(ASPP(3, 4, 16))
    assert isinstance(converted.pooled[1], nn.SyncBatchNorm)

import pytest
import torch
import torch.nn.functional as F
from tests.models.tester import build, images

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import LevelHeads, LevelHeadsConfig
from pixelcontrast.models.encoder import _plan
from pixelcontrast.models.level_heads import LevelHead, unit_length

SMALL = ("mobilenetv3_small_050", "deeplabv3plus")


def test_parameters_are_those_published_for_hrnet():
    """HRNet + Contextrast has 0.38 M parameters more than HRNet (65.86 and 66.24 M)."""
    channels = _plan("hrnet_w48", 32).channels
    assert channels == (48, 96, 192, 384)
    heads = LevelHeads(channels)
    assert sum(p.numel() for p in heads.parameters()) == 382_624


def test_every_stage_gets_an_embedding_of_its_own_size():
    network = build(*SMALL, embedding=LevelHeadsConfig(dim=6))
    output = network(images(2, 33, 50), embed=True)
    assert len(output.levels) == len(output.stages) == 4
    for level, stage in zip(output.levels, output.stages, strict=True):
        assert level.shape == (2, 6, *stage.shape[2:])
        torch.testing.assert_close(level.norm(dim=1), torch.ones_like(level[:, 0]))
    assert output.embedding is output.levels[-1]
    assert network(images(1, 33, 34)).levels == ()


def test_chosen_levels_alone_get_heads():
    network = build(*SMALL, embedding=LevelHeadsConfig(dim=6, levels=(2, 4))).eval()
    output = network(images(1, 64, 64), embed=True)
    assert [z.shape for z in output.levels] == [(1, 6, *output.stages[i].shape[2:]) for i in (1, 3)]
    twin = network.embedding_head["2"]
    assert torch.equal(output.levels[0], twin(output.stages[1]))


def test_idle_heads_get_a_zero_gradient():
    network = build(*SMALL, embedding=LevelHeadsConfig(dim=6))
    network.idle_heads(network(images(2, 40, 40))).backward()
    for parameter in network.embedding_head.parameters():
        assert torch.count_nonzero(parameter.grad) == 0


def test_zero_features_and_half_precision_stay_finite():
    head = LevelHead(3, 4).eval()
    with torch.no_grad():
        head[-1].bias.zero_()
        found = head(torch.zeros(1, 3, 2, 2))
        assert torch.count_nonzero(found) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert head(torch.rand(1, 3, 2, 2)).dtype == torch.float32


def test_a_level_the_encoder_does_not_have_is_named():
    with pytest.raises(ConfigError, match="4 stages"):
        build(*SMALL, embedding=LevelHeadsConfig(levels=(1, 5)))


@pytest.mark.parametrize("values", [{"dim": 0}, {"levels": ()}, {"levels": (0, 1)}])
def test_impossible_heads_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        LevelHeadsConfig(**values)


def test_levels_must_rise():
    with pytest.raises(ConfigError, match="rising"):
        LevelHeadsConfig(levels=(2, 1))


def test_unit_length_is_normalize_with_its_gradient():
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, 0] = 0.0
    x[0, :, 0, 1] *= 1e-14
    twins = [x.clone().requires_grad_() for _ in range(2)]
    weight = torch.arange(x.numel()).view_as(x).sin()
    found, expected = unit_length(twins[0]), F.normalize(twins[1], dim=1, eps=1e-12)
    torch.testing.assert_close(found, expected)
    for y in (found, expected):
        (y * weight).sum().backward()
    torch.testing.assert_close(twins[0].grad, twins[1].grad)
    half = x.to(torch.bfloat16).requires_grad_()
    unit_length(half).sum().backward()
    assert unit_length(half).dtype == torch.float32
    assert half.grad.dtype == torch.bfloat16

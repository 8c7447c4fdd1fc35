import pytest
import torch
from torch import nn

from pixelcontrast.models import AuxiliaryHead, Classifier, ProjectionHead


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("inputs", "published"), [(720, 705_136), (2048, 4_724_992)])
def test_projection_head_has_the_published_size(inputs, published):
    assert count(ProjectionHead(inputs)) == published


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_layers_are_1x1_convolutions(layers):
    head = ProjectionHead(8, 4, layers=layers, hidden=6)
    convolutions = [m for m in head.net if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in convolutions] == [8, 6, 6][:layers]
    assert [m.out_channels for m in convolutions] == [6, 6, 4][-layers:]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in head.net) == layers - 1


def test_head_without_batch_norm():
    head = ProjectionHead(8, 4, layers=3, batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in head.net)


def test_embedding_is_the_normalised_projection():
    head = ProjectionHead(5, 3, layers=1).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    weight, bias = head.net[0].weight[:, :, 0, 0], head.net[0].bias
    expected = torch.empty(2, 3, 4, 3, dtype=torch.float64)
    for b, i, j in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(3)):
        raw = weight @ x[b, :, i, j] + bias
        expected[b, :, i, j] = raw / raw.dot(raw).sqrt()
    out = head(x)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected.float())


def test_zero_and_tiny_vectors_stay_finite():
    head = ProjectionHead(4, 4, layers=1)
    nn.init.zeros_(head.net[0].bias)
    x = torch.zeros(1, 4, 1, 2)
    x[..., 1] = 1e-30
    x.requires_grad_()
    head(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_norm_is_taken_in_float32_under_autocast():
    head = ProjectionHead(32, 64)
    x = torch.randn(2, 32, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        out = head(x)
    assert out.dtype == torch.float32
    assert (out.norm(dim=1) - 1).abs().max() < 1e-5


def test_auxiliary_head_has_torchvisions_size():
    from torchvision.models.segmentation.fcn import FCNHead

    assert count(AuxiliaryHead(64, 7)) == count(FCNHead(64, 7))


def test_classifier_drops_whole_channels():
    torch.manual_seed(0)
    classifier = Classifier(64, 3, 0.5).train()
    dropped = classifier[0](torch.ones(1, 64, 4, 4))
    assert set(dropped.mean((2, 3)).flatten().tolist()) == {0.0, 2.0}

import pytest
import torch
from torch import nn

from pixelcontrast.models import AuxiliaryHead, Classifier, ProjectionHead, VarianceHead
from pixelcontrast.models.heads import bounded_sigmoid


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


def test_convolution_blocks_come_before_the_last_1x1():
    head = ProjectionHead(8, 4, layers=3, hidden=6, kernel=3, dropout=0.1)
    kinds = [type(part).__name__ for part in head.net]
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Dropout2d"]
    assert kinds == [*block, *block, "Conv2d"]
    convolutions = [m for m in head.net if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size[0] for m in convolutions] == [3, 3, 1]
    assert [m.bias is None for m in convolutions] == [True, True, False]
    assert head(torch.randn(2, 8, 5, 6)).shape == (2, 4, 5, 6)


def test_embedding_keeps_its_length_when_told_so():
    head = ProjectionHead(5, 3, layers=1, normalise=False)
    x = torch.randn(2, 5, 4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(x).dtype == torch.float32
    torch.testing.assert_close(head(x), head.net(x))


def test_variance_head_has_the_published_size_and_range():
    head = VarianceHead(304, 256, hidden=256)
    assert count(head) == 143_874
    with torch.no_grad():
        variance = head(torch.randn(2, 304, 16, 16).relu())
    assert variance.mean() == pytest.approx(0.5, abs=0.02)
    assert 1e-6 < variance.min() < 0.05
    assert 0.95 < variance.max() < 1


def test_variance_head_is_two_unit_row_maps():
    head = VarianceHead(5, 3, hidden=4).double().eval()
    with torch.no_grad():
        head.gamma.fill_(1.5)
        head.beta.fill_(-0.5)
        for buffer in head.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    x = torch.randn(1, 5, 2, 3, dtype=torch.float64)
    found = head(x)
    for i in range(2):
        for j in range(3):
            u = torch.stack([row @ x[0, :, i, j] / row.norm() for row in head.first])
            norm = head.first_norm
            u = (u - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
            z = torch.stack([row @ u.relu() / row.norm() for row in head.second])
            norm = head.second_norm
            z = (z - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
            expected = ((1.5 * z - 0.5).exp() + 1e-6).log().sigmoid()
            torch.testing.assert_close(found[0, :, i, j], expected)


def test_bounded_sigmoid_at_known_points():
    x = torch.tensor([0.0, 2.0, -2.0, -20.0, 1e4, -1e4], requires_grad=True)
    y = bounded_sigmoid(x, 1e-6)
    expected = torch.tensor([0.50000025, 0.880797, 0.119204, 1.00206e-6, 1.0, 1e-6])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=0)
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[4] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_variance_tail_is_float32_under_autocast(dtype):
    head = VarianceHead(16, 8)
    with torch.no_grad():
        head.gamma.fill_(1e4)
    x = torch.randn(2, 16, 6, 6, requires_grad=True)
    with torch.autocast("cpu", dtype):
        variance = head(x)
    assert variance.dtype == torch.float32
    variance.sum().backward()
    assert torch.isfinite(x.grad).all()

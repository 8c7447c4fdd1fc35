import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pixelcontrast.losses import backends, matrix, pixel_info_nce
from pixelcontrast.losses.problem import Contrast


@pytest.mark.parametrize(("pairs", "expected"), [(16, "matrix"), (15, "stream")])
def test_auto_takes_the_fastest_on_a_cpu(monkeypatch, pairs, expected):
    called = []
    for name in ("matrix", "stream", "fused"):
        engine = getattr(backends, f"{name}_terms")

        def record(contrast, name=name, engine=engine):
            called.append(name)
            return engine(contrast)

        monkeypatch.setattr(backends, f"{name}_terms", record)
    monkeypatch.setattr(backends, "SMALL", {"cpu": pairs})
    rows, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
    pixel_info_nce(rows, labels)
    pixel_info_nce(rows, labels, rows, labels, include_anchors=False)
    assert called == [expected] * 2


@pytest.mark.parametrize(
    ("rows", "fits", "expected"),
    [(4, True, "matrix"), (5, True, "triton"), (4, False, "matrix"), (5, False, "matrix")],
)
def test_auto_takes_the_fastest_elsewhere(monkeypatch, rows, fits, expected):
    monkeypatch.setattr(backends, "SMALL", {"meta": 16})
    monkeypatch.setattr(backends, "fits", lambda _: fits)
    vectors, labels = torch.empty(rows, 8, device="meta"), torch.empty(rows, device="meta")
    contrast = Contrast(vectors, labels.long(), None, None, True, 10.0, "negatives")
    assert backends._fastest(contrast) == expected


def test_512_pixels_on_a_cpu_store_their_matrix(monkeypatch):
    monkeypatch.setattr(backends, "stream_terms", None)
    rows = torch.rand(512, 4)
    assert torch.isfinite(pixel_info_nce(rows, torch.arange(512) % 5))


@pytest.mark.parametrize("count", [64, 300])
@pytest.mark.parametrize("form", ["negatives", "all"])
@pytest.mark.parametrize(("device", "backend"), [("cuda", "auto"), ("cpu", "matrix")])
def test_without_kernels_a_gpu_is_not_waited_for(monkeypatch, count, form, device, backend):
    """Fake tensors have no values: whatever has to read one raises. Those of a GPU that is not
    there have no backward pass either."""
    monkeypatch.setattr(matrix, "PAIRS", 2**15)  # 300 x 200 in two blocks
    with FakeTensorMode():
        rows, keys = (torch.rand(n, 8, device=device, requires_grad=True) for n in (count, 200))
        labels, key_labels = (torch.zeros(n, dtype=torch.long, device=device) for n in (count, 200))
        images, key_images = (torch.zeros_like(ids) for ids in (labels, key_labels))
        loss = pixel_info_nce(
            rows,
            labels,
            keys,
            key_labels,
            negatives="own_image",
            anchor_images_N=images,
            key_images_K=key_images,
            denominator=form,
            ignore_index=255,
            backend=backend,
        )
        assert loss.device.type == device
        if device == "cpu":
            loss.backward()
            assert rows.grad.shape == rows.shape
        with pytest.raises(Exception, match=r"item|data-dependent|_local_scalar_dense"):
            loss.item()

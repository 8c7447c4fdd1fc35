import pytest
import torch

from pixelcontrast.losses import backends, pixel_info_nce
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

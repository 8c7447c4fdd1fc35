import pytest
import torch

from pixelcontrast.losses import backends, pixel_info_nce


@pytest.mark.parametrize(
    ("pairs", "fits", "expected"),
    [(16, True, "naive"), (15, True, "fused"), (16, False, "naive"), (15, False, "stream")],
)
def test_auto_takes_the_fastest_that_fits(monkeypatch, pairs, fits, expected):
    called = []
    full = backends.naive_terms
    for name in ("naive", "stream", "fused"):

        def record(contrast, name=name):
            called.append(name)
            return full(contrast)

        monkeypatch.setattr(backends, f"{name}_terms", record)
    monkeypatch.setattr(backends, "SMALL", {"cpu": pairs})
    monkeypatch.setattr(backends, "fits", lambda _: fits)
    rows, labels = torch.eye(4), torch.tensor([0, 0, 1, 1])
    pixel_info_nce(rows, labels)
    pixel_info_nce(rows, labels, rows, labels, include_anchors=False)
    assert called == [expected] * 2


def test_small_problems_on_a_cpu_store_their_matrix(monkeypatch):
    monkeypatch.setattr(backends, "stream_terms", None)
    rows = torch.rand(256, 4)
    assert torch.isfinite(pixel_info_nce(rows, torch.arange(256) % 5))

import pytest
import torch

from pixelcontrast.methods.cluster_statistics import (
    cluster_statistics,
    collapse_warning,
    matched_share,
    pair_counts,
)


def test_evenness_and_largest_share():
    even = cluster_statistics(torch.tensor([5, 5, 5, 5]))
    assert even["cluster_entropy"] == pytest.approx(1)
    assert even["largest_cluster"] == 0.25
    one = cluster_statistics(torch.tensor([0, 9, 0]))
    assert one == {"cluster_entropy": 0.0, "largest_cluster": 1.0, "used_clusters": 1.0}


def test_agreement_ignores_how_clusters_are_numbered():
    first = torch.tensor([0, 0, 1, 1, 2])
    assert matched_share(pair_counts(first, (first + 1) % 3, 3)) == 1.0
    assert matched_share(pair_counts(first, torch.zeros_like(first), 3)) == pytest.approx(0.4)
    assert matched_share(torch.zeros(3, 3, dtype=torch.int64)) == 0.0


def test_a_collapse_is_told():
    sizes = {"view1": 8}
    assert collapse_warning({"largest_cluster_view1": 0.5, "used_clusters_view1": 8}, sizes) is None
    assert "95 %" in collapse_warning({"largest_cluster_view1": 0.95}, sizes)
    assert "3 of 8" in collapse_warning({"used_clusters_view1": 3.0}, sizes)

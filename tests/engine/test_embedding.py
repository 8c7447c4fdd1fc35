import json

import pytest
import torch

from pixelcontrast.engine.embedding import EXTENT, embedding_pictures


def sample(count=40, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    vectors = torch.randn(count, width, generator=generator) + 3 * labels[:, None] ** 2
    return vectors, labels


def test_pictures_are_plain_and_fit_a_square():
    pytest.importorskip("sklearn")
    samples = {"classifier input": sample(), "level 1": sample(seed=1), "level 2": sample(seed=2)}
    pictures = json.loads(json.dumps(embedding_pictures(samples)))
    assert [picture["layer"] for picture in pictures] == ["classifier input", "level 2"]
    for picture in pictures:
        assert picture["labels"] == [i % 4 for i in range(40)]
        assert 0 < picture["pca_share"] <= 1
        for kind in ("pca", "tsne"):
            points = torch.tensor(picture[kind])
            assert points.shape == (40, 2)
            assert int(points.min()) >= 0
            assert int((points.amax(0) - points.amin(0)).max()) in (EXTENT - 1, EXTENT)


def test_length_does_not_move_a_point():
    vectors, labels = sample()
    lengths = torch.arange(1, 41)[:, None]
    (plain,) = embedding_pictures({"a": (vectors, labels)})
    (scaled,) = embedding_pictures({"a": (vectors * lengths, labels)})
    assert plain["pca"] == scaled["pca"]


def test_without_scikit_learn_there_is_one_picture(monkeypatch):
    monkeypatch.setattr("pixelcontrast.engine.embedding.tsne_plane", lambda *a, **k: None)
    (picture,) = embedding_pictures({"a": sample()})
    assert picture["tsne"] is None
    assert len(picture["pca"]) == 40


def test_no_features_no_picture():
    empty = (torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64))
    assert embedding_pictures({"a": empty}) == []
    assert embedding_pictures({}) == []

import json
from pathlib import Path

import numpy as np

from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset
from pixelcontrast.data.stats import summarise


def test_counts_shares_rare_and_absent():
    samples = [Sample(i, Path(i), Path(i)) for i in "abv"] + [Sample("u", Path("u"))]
    info = DatasetInfo("x", ("big", "small", "none"))
    splits = {"train": ("a", "b", "u"), "labeled": ("a", "b"), "val": ("v",)}
    dataset = SegDataset(info, Path(), tuple(samples), splits)
    counts = {
        "a": np.array([900, 0, 0, 100]),
        "b": np.array([970, 30, 0, 0]),
        "v": np.array([0, 500, 500, 0]),
    }
    stats = summarise(dataset, counts, [(40, 30)] * 3 + [(10, 10)])
    big, small, none = stats.classes
    assert (big.pixels, big.images, big.rare) == (1870, 2, False)
    assert (small.pixels, small.images, small.rare) == (30, 1, True)
    assert small.share == 30 / 1900
    assert stats.rare == ("small", "none")
    assert stats.absent == ("none",)
    assert none.share == 0
    assert stats.counted == "labeled"
    assert stats.ignored_share == 100 / 2000
    assert stats.unlabeled_share == 0.25
    assert stats.sizes == ((40, 30, 3), (10, 10, 1))
    assert stats.splits == {"train": 3, "labeled": 2, "val": 1}
    json.dumps(stats.to_dict())


def test_the_rare_line_moves_with_the_class_count():
    """Below a tenth of the even share."""

    def rare(share, classes):
        info = DatasetInfo("x", tuple(map(str, range(classes))))
        dataset = SegDataset(info, Path(), (Sample("a", Path(), Path()),), {"train": ("a",)})
        row = np.full(classes + 1, (1 - share) / (classes - 1) * 1e6)
        row[0] = share * 1e6
        return summarise(dataset, {"a": row.astype(np.int64)}, []).classes[0].rare

    assert rare(0.009, 11)
    assert not rare(0.0092, 11)
    assert rare(0.049, 2)
    assert not rare(0.051, 2)


def test_nothing_to_count():
    dataset = SegDataset(DatasetInfo("x", ()), Path(), (Sample("a", Path()),))
    stats = summarise(dataset, {}, [])
    assert stats.classes == ()
    assert stats.ignored_share == 0

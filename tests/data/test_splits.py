import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset
from pixelcontrast.data.splits import (
    Split,
    complement,
    complete_splits,
    listed_splits,
    make_split,
    read_split,
    split_hash,
    verify_split,
    write_split,
)


def samples(masked, unmasked=()):
    return tuple(Sample(i, Path(i), Path(i)) for i in masked) + tuple(
        Sample(i, Path(i)) for i in unmasked
    )


def dataset(masked, unmasked=(), classes=4, **splits):
    info = DatasetInfo("x", tuple(f"c{i}" for i in range(classes)))
    found = samples(masked, unmasked)
    return SegDataset(info, Path("root"), found, splits or {"train": tuple(s.id for s in found)})


def test_files_go_back_and_forth(tmp_path):
    path = tmp_path / "splits" / "train.txt"
    write_split(path, ["b", "a/c", "ü"])
    assert read_split(path) == ("b", "a/c", "ü")
    path.write_bytes(b"\xef\xbb\xbf# comment\r\n a \r\n\r\nsub\\b\r\n")
    assert read_split(path) == ("a", "sub/b")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read the split"):
        read_split(path)
    with pytest.raises(DataError, match="cannot read the split"):
        read_split(tmp_path / "none.txt")


def test_hash_is_of_the_set():
    expected = hashlib.sha256(b"a\nb").hexdigest()
    assert split_hash(["b", "a", "a"]) == Split("x", ("a", "b")).sha256 == expected
    assert split_hash(["a"]) != expected


def test_verify():
    data = dataset("ab", "c")
    verify_split(data, ["b", "a"], sha256=split_hash("ab"))
    verify_split(data, ["a", "c"], masks=False)
    for ids, arguments, message in (
        (["a", "x"], {}, "do not exist"),
        (["a", "a"], {}, "twice"),
        (["a", "c"], {}, "no mask, for example c"),
        (["a"], {"sha256": split_hash("ab")}, "hash"),
    ):
        with pytest.raises(DataError, match=message):
            verify_split(data, ids, **arguments)


@given(
    shown=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12),
    share=st.floats(0.05, 1),
    seed=st.integers(0, 50),
)
def test_draws_have_the_size_and_cover_what_can_be_covered(shown, share, seed):
    ids = [f"i{n}" for n in range(len(shown))]
    counts = {i: np.array([*row, 0], np.int64) * 5 for i, row in zip(ids, shown, strict=True)}
    data = dataset(ids)
    split = make_split(data, counts, fraction=share, seed=seed)
    assert len(split.ids) == len(set(split.ids)) == max(1, round(share * len(ids)))
    assert split == make_split(data, counts, fraction=share, seed=seed)
    occurring = np.any(shown, axis=0)
    chosen = np.any([counts[i][:4] > 0 for i in split.ids], axis=0)
    missing = tuple(f"c{k}" for k in np.flatnonzero(occurring & ~chosen))
    assert split.uncovered == missing
    if len(split.ids) >= occurring.sum():
        assert not missing
    rest = complement(data, split)
    assert rest.name == "unlabeled"
    assert sorted(rest.ids + split.ids) == sorted(ids)


def test_draws_are_uniform_without_covering():
    ids = [f"i{n}" for n in range(10)]
    counts = {i: np.array([1, 0, 0, 0, 0]) for i in ids}
    hits = dict.fromkeys(ids, 0)
    for seed in range(400):
        for i in make_split(dataset(ids), counts, count=3, seed=seed, cover_classes=False).ids:
            hits[i] += 1
    # 400 draws of 3 of 10: mean 120, standard deviation 9.2.
    assert all(80 < n < 160 for n in hits.values())


def test_only_images_with_masks_are_drawn():
    data = dataset("ab", "cdef")
    counts = {i: np.array([1, 0, 0, 0, 0]) for i in "ab"}
    assert make_split(data, counts, count=2).ids == ("a", "b")
    assert complement(data, Split("labeled", ("a",))).ids == ("b", "c", "d", "e", "f")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fraction": 0.5, "count": 1},
        {"fraction": 0},
        {"fraction": 1.1},
        {"count": 0},
        {"count": 3},
    ],
)
def test_impossible_draws_are_refused(arguments):
    counts = {i: np.zeros(5, np.int64) for i in "ab"}
    with pytest.raises(ConfigError):
        make_split(dataset("ab"), counts, **arguments)


def test_listed_ids_are_matched_and_reported():
    found = samples(["a", "b.c", "sub/d"])
    lines = {"train": ("a.png", "b.c", "sub/d.JPG", "a"), "val": ("zz", "zz", "a.txt")}
    splits, problems = listed_splits(found, lines, {"val": "splits/val.txt"})
    assert splits == {"train": ("a", "b.c", "sub/d"), "val": ()}
    codes = [(p.severity, p.code) for p in problems]
    assert codes == [
        ("warning", "split-repeated-id"),
        ("error", "split-unknown-id"),
        ("error", "split-unknown-id"),
        ("warning", "split-repeated-id"),
    ]
    assert problems[1].file == "splits/val.txt"
    assert "'zz'" in problems[1].message


def complete(masked, unmasked=(), **given):
    splits, problems = complete_splits(
        samples(masked, unmasked), {name: tuple(ids) for name, ids in given.items()}
    )
    return {name: "".join(ids) for name, ids in splits.items()}, problems


def test_nothing_listed():
    splits, problems = complete("abcdefghij", "xy")
    assert len(splits["val"]) == 2
    assert sorted(splits["train"] + splits["val"]) == sorted("abcdefghijxy")
    assert splits["labeled"] + splits["unlabeled"] == splits["train"]
    assert splits["unlabeled"] == "xy"
    assert [p.code for p in problems] == ["no-val-split"]
    assert "2 images" in problems[0].message
    assert splits == complete("abcdefghij", "xy")[0]


def test_hold_out_stays_when_images_are_added():
    few, _ = complete([f"{i}" for i in range(8)])
    more, _ = complete([f"{i}" for i in range(9)])
    assert set(few["val"]) - set(more["val"]) <= set(few["val"][:1])
    # Ranked by hash, the old choice only changes where a new image ranks before it.
    ranked = sorted("01234567", key=lambda i: hashlib.sha256(i.encode()).digest())
    assert set(few["val"]) == set(ranked[:2])


def test_everything_listed_is_kept():
    given = {"train": "abx", "val": "c", "test": "d", "labeled": "a", "unlabeled": "bx"}
    splits, problems = complete("abcd", "x", **given)
    assert splits == given
    assert not problems


@pytest.mark.parametrize(
    ("masked", "unmasked", "given", "expected"),
    [
        ("abcd", "", {"val": "d"}, {"train": "abc", "labeled": "abc"}),
        (
            "abcd",
            "x",
            {"val": "d", "test": "c"},
            {"train": "abx", "labeled": "ab", "unlabeled": "x"},
        ),
        ("abcd", "xy", {"train": "abx", "val": "d"}, {"labeled": "ab", "unlabeled": "xy"}),
        ("abcd", "", {"val": "d", "labeled": "a"}, {"train": "abc", "unlabeled": "bc"}),
        ("abcd", "", {"val": "d", "unlabeled": "bc"}, {"train": "abc", "labeled": "a"}),
        ("", "xy", {}, {"train": "xy", "unlabeled": "xy"}),
        ("a", "", {}, {"train": "a", "labeled": "a"}),
        ("abc", "", {"train": "ab"}, {"val": "c", "labeled": "ab"}),
    ],
)
def test_missing_splits_are_filled_in(masked, unmasked, given, expected):
    splits, _ = complete(masked, unmasked, **given)
    assert splits == {**given, **expected}


def test_hold_out_spares_labelled_images():
    splits, _ = complete("abcdefghij", labeled="abc")
    assert splits["labeled"] == "abc"
    assert not set(splits["val"]) & set("abc")
    splits, _ = complete("abcdefghij", labeled="abc", unlabeled="defghij")
    assert set(splits["val"]) <= set("abc")
    assert len(splits["val"]) == 1
    assert set(splits["labeled"]) == set("abc") - set(splits["val"])
    assert not set(splits["val"]) & set(splits["train"])


def test_one_mask_is_too_few_to_hold_out():
    _, problems = complete("a", "xyz")
    assert "too few" in problems[0].message
    assert complete("", "xyz")[1] == []

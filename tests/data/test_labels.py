import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.data.labels import (
    StoredMask,
    colour_name,
    colour_targets,
    map_mask,
    pack_colours,
    undeclared_mark,
    unpack_colour,
    value_targets,
)

CLASSES = ("a", "b", "c")


def slow_map(values, info):
    """One pixel at a time, as the documentation states it; None for undeclared."""
    result = []
    for value in np.asarray(values).ravel().tolist():
        if info.label_map is not None and value in info.label_map:
            result.append(info.label_map[value])
        elif value == info.ignore_index:
            result.append(info.ignore_index)
        elif info.label_map is None and 0 <= value < info.num_classes:
            result.append(value)
        else:
            result.append(None)
    return result


maps = st.none() | st.dictionaries(st.integers(0, 300), st.sampled_from([0, 1, 2, 255]), min_size=1)


@given(
    label_map=maps,
    values=st.lists(st.integers(-3, 310), min_size=1, max_size=30),
    wide=st.booleans(),
)
def test_integers_are_mapped_like_one_pixel_at_a_time(label_map, values, wide):
    info = DatasetInfo("x", CLASSES, label_map=label_map)
    stored = np.array([values]).astype(np.int32 if wide else np.uint8)
    expected = slow_map(stored, info)
    targets = value_targets(stored.astype(np.int64).ravel(), info)
    assert [None if t == undeclared_mark(info) else t for t in targets.tolist()] == expected
    if None in expected:
        with pytest.raises(DataError, match="undeclared label values"):
            map_mask(StoredMask(stored), info, "m.png")
    else:
        mapped = map_mask(StoredMask(stored), info, "m.png")
        assert mapped.dtype == np.uint8
        assert mapped.ravel().tolist() == expected


@given(
    colours=st.lists(st.tuples(*[st.sampled_from([0, 1, 128, 255])] * 3), min_size=1, max_size=20),
    declared=st.dictionaries(
        st.tuples(*[st.sampled_from([0, 1, 128, 255])] * 3),
        st.sampled_from([0, 1, 2, 255]),
        min_size=1,
        max_size=40,
    ),
)
def test_colours_are_mapped_like_one_pixel_at_a_time(colours, declared):
    info = DatasetInfo("x", CLASSES, label_map=declared)
    expected = [declared.get(colour) for colour in colours]
    codes = pack_colours(np.array(colours)).astype(np.int64)
    targets = colour_targets(codes, info).tolist()
    assert [None if t == undeclared_mark(info) else t for t in targets] == expected
    stored = StoredMask(np.array([colours], np.uint8))
    if None in expected:
        with pytest.raises(DataError, match="undeclared colours"):
            map_mask(stored, info, "m.png")
    else:
        assert map_mask(stored, info, "m.png").ravel().tolist() == expected


def test_message_names_values_pixels_file_and_remedy():
    mask = StoredMask(np.array([[0, 7, 7, 9]], np.uint8))
    with pytest.raises(DataError) as caught:
        map_mask(mask, DatasetInfo("x", CLASSES), "masks/street.png")
    text = str(caught.value)
    for part in ("7 (2 px)", "9 (1 px)", "masks/street.png", "label_map"):
        assert part in text


def test_colours_without_a_map_say_so():
    mask = StoredMask(np.array([[[128, 64, 128]]], np.uint8))
    with pytest.raises(DataError, match=r"no label map says.*#804080 \(1 px\)"):
        map_mask(mask, DatasetInfo("x", CLASSES), "m.png")


def test_equal_channels_are_grey_unless_the_map_has_colours():
    grey = StoredMask(np.repeat(np.array([[[0], [2]]], np.uint8), 3, axis=2))
    assert map_mask(grey, DatasetInfo("x", CLASSES), "m").tolist() == [[0, 2]]
    coloured = DatasetInfo("x", CLASSES, label_map={(0, 0, 0): 1, (2, 2, 2): 0})
    assert map_mask(grey, coloured, "m").tolist() == [[1, 0]]


def test_palette_files_use_ids_or_colours_as_the_map_does():
    palette = np.zeros((256, 3), np.uint8)
    palette[1] = (128, 0, 0)
    stored = StoredMask(np.array([[0, 1]], np.uint8), palette)
    assert map_mask(stored, DatasetInfo("x", CLASSES), "m").tolist() == [[0, 1]]
    by_id = DatasetInfo("x", CLASSES, label_map={0: 2, 1: 255})
    assert map_mask(stored, by_id, "m").tolist() == [[2, 255]]
    by_colour = DatasetInfo("x", CLASSES, label_map={(0, 0, 0): 0, (128, 0, 0): 2})
    assert map_mask(stored, by_colour, "m").tolist() == [[0, 2]]


def test_another_ignore_index_frees_255_as_the_mark():
    info = DatasetInfo("x", CLASSES, ignore_index=254)
    assert undeclared_mark(info) == 255
    assert map_mask(StoredMask(np.array([[254, 1]], np.uint8)), info, "m").tolist() == [[254, 1]]
    with pytest.raises(DataError, match="255"):
        map_mask(StoredMask(np.array([[255]], np.uint8)), info, "m")


def test_a_map_may_use_255_as_a_class():
    info = DatasetInfo("x", ("background", "object"), label_map={0: 0, 255: 1})
    assert map_mask(StoredMask(np.array([[0, 255]], np.uint8)), info, "m").tolist() == [[0, 1]]


@given(st.integers(0, (1 << 24) - 1))
def test_colour_codes_go_back_and_forth(code):
    colour = unpack_colour(code)
    assert int(pack_colours(np.array(colour))) == code
    assert colour_name(colour) == f"#{code:06x}"

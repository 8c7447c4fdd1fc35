import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.data.description import (
    info_from_description,
    read_description,
    write_description,
)


def described(tmp_path, text):
    path = tmp_path / "dataset.yaml"
    path.write_text(text, encoding="utf-8")
    return info_from_description(read_description(path), "fallback", path)


def test_everything_in_one_file(tmp_path):
    info = described(
        tmp_path,
        """
        name: street
        classes: [road, car, "sign 1"]
        palette: ["#804080", [0, 0, 142], "220, 220, 0"]
        ignore_index: 254
        label_map: {0: road, 7: 1, 9: ignore, 10: ~, "#ff0000": car, [1, 2, 3]: "sign 1"}
        """,
    )
    assert info == DatasetInfo(
        "street",
        ("road", "car", "sign 1"),
        ((128, 64, 128), (0, 0, 142), (220, 220, 0)),
        254,
        {0: 0, 7: 1, 9: 254, 10: 254, (255, 0, 0): 1, (1, 2, 3): 2},
    )


def test_classes_by_id_and_fallback_name(tmp_path):
    info = described(tmp_path, "classes: {1: car, 0: road}")
    assert info.name == "fallback"
    assert info.classes == ("road", "car")
    assert info.label_map is None


def test_empty_file_says_nothing(tmp_path):
    (tmp_path / "dataset.yaml").write_text("")
    assert read_description(tmp_path / "dataset.yaml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a, b", "not valid YAML"),
        ("- a\n- b", "mapping of keys"),
        ("classez: [a, b]", "did you mean 'classes'"),
        ("classes: a", "list of names"),
        ("classes: []", "list of names"),
        ("classes: [a, 2]", "no class name"),
        ("classes: [a, ignore]", "no class name"),
        ("classes: [a, no]", "no class name"),
        ("classes: {0: a, 2: b}", "without gaps"),
        ("classes: [a, a]", "twice"),
        ("classes: [a]\npalette: ['#12']", "no colour"),
        ("classes: [a]\npalette: red", "list of colours"),
        ("classes: [a]\npalette: [[1, 2, 300]]", "no colour"),
        ("classes: [a, b]\npalette: ['#123456']", "1 colours for 2"),
        ("classes: [a, b]\nignore_index: 0", "ignore_index 0"),
        ("classes: [a, b]\nignore_index: none", "integer"),
        ("label_map: {0: a}", "needs classes"),
        ("classes: [a]\nlabel_map: [0, 1]", "must map"),
        ("classes: [road, b]\nlabel_map: {0: raod}", "did you mean 'road'"),
        ("classes: [a]\nlabel_map: {0: 5}", "no class id"),
        ("classes: [a]\nlabel_map: {70000: a}", "cannot be a stored value"),
        ("classes: [a]\nlabel_map: {-1: a}", "cannot be a stored value"),
        ("classes: [a]\nlabel_map: {0: [1]}", "cannot send"),
        ("classes: [a]\nlabel_map: {0: a, 0: a}", "twice"),
        ("classes: [a]\nlabel_map: {'#000000': a, [0, 0, 0]: a}", "twice"),
        ("classes: [a]\nlabel_map: {true: a}", "no colour"),
    ],
)
def test_mistakes_are_named_with_the_file(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        described(tmp_path, text)
    assert "dataset.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "label_map", [None, {0: 1, 255: 0}, {(1, 2, 3): 0, (0, 0, 0): 255}, {3: 255, (9, 9, 9): 1}]
)
def test_written_descriptions_are_read_back(tmp_path, label_map):
    info = DatasetInfo("ä: b", ("on", "größe # 2"), label_map=label_map)
    write_description(tmp_path / "dataset.yaml", info)
    found = read_description(tmp_path / "dataset.yaml")
    assert info_from_description(found, "fallback", tmp_path) == info

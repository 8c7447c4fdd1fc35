import json
import warnings

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.catalog import open_dataset
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.reading import read_image, read_mask

YAML = "classes: [road, car]"


def checked(root, **options):
    return check_dataset(open_dataset(root, strict=False), workers=1, **options)


def codes(report, severity=None):
    return sorted({p.code for p in report.problems if severity in (None, p.severity)})


@pytest.fixture
def sound(draw, ids_mask):
    """A set without any problem, to be damaged by the tests."""
    masks = {i: ids_mask(0, 1) for i in "abcd"}
    return draw(masks, yaml=YAML, splits={"train": ["a", "b", "c"], "val": ["d"]})


def test_a_sound_set_has_no_problem(sound):
    report = checked(sound)
    assert report.problems == ()
    assert report.ok
    assert report.lines() == []
    report.raise_on_errors(sound)
    assert [c.pixels for c in report.stats.classes] == [3 * 40 * 24, 3 * 40 * 24]


def cut(path, keep=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_truncated_files(sound):
    cut(sound / "images" / "a.jpg")
    cut(sound / "masks" / "b.png")
    (sound / "images" / "c.jpg").write_bytes(b"nothing")
    report = checked(sound)
    assert codes(report, "error") == ["unreadable"]
    assert {p.file.rpartition("/")[2] for p in report.errors} == {"a.jpg", "b.png", "c.jpg"}


def test_damage_inside_a_file_is_found_by_decoding(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1), "b": ids_mask(0, 1)}, yaml=YAML, suffix=".png")
    path = root / "images" / "a.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert checked(root).ok
    assert codes(checked(root, decode_images=True), "error") == ["unreadable"]


def test_size_mismatch_and_rotation(sound, ids_mask):
    Image.fromarray(ids_mask(0, 1)[:39]).save(sound / "masks" / "a.png")
    Image.fromarray(ids_mask(0, 1).T).save(sound / "masks" / "b.png")
    report = checked(sound)
    assert codes(report) == ["size-mismatch"]
    one, turned = report.errors
    assert "48 x 39 pixels, its image 48 x 40" in one.message
    assert "EXIF" in turned.fix
    assert "EXIF" not in one.fix


def test_undeclared_values_with_a_map_for_all_masks(sound, ids_mask):
    Image.fromarray(ids_mask(0, 7)).save(sound / "masks" / "a.png")
    Image.fromarray(ids_mask(1, 9, 9)).save(sound / "masks" / "d.png")
    report = checked(sound)
    assert codes(report) == ["undeclared-values"]
    assert [p.file[-5:] for p in report.errors] == ["a.png", "d.png"]
    assert "7 (960 px)" in report.errors[0].message
    fix = "label_map: {0: road, 1: car, 7: ignore, 9: ignore}"
    assert all(fix in p.fix for p in report.errors)


def test_the_proposed_map_works(draw, ids_mask):
    root = draw({i: ids_mask(1, 2) for i in "ab"}, yaml=YAML)
    (problem, *_) = checked(root).errors
    assert "count from 1" in problem.fix
    (root / "dataset.yaml").write_text(YAML + "\n" + problem.fix.partition(":\n")[2])
    assert checked(root).ok
    dataset = open_dataset(root)
    assert np.unique(read_mask(dataset.samples[0].mask, dataset.info)).tolist() == [0, 1]


def test_colour_masks_without_a_map(draw):
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[:, 10:] = (128, 64, 128)
    root = draw({"a": mask, "b": mask})
    report = checked(root)
    assert codes(report, "error") == ["colour-mask"]
    assert len(report.errors) == 2
    proposal = report.errors[0].fix.partition(":\n")[2]
    assert yaml.safe_load(proposal) == {
        "classes": ["class_0", "class_1"],
        "label_map": {"#804080": "class_0", "#000000": "class_1"},
    }
    (root / "dataset.yaml").write_text(proposal)
    assert checked(root).ok


@pytest.mark.parametrize("grey", [(0,), (0, 1), (0, 255), (0, 1, 2)])
def test_what_is_proposed_for_colours_beside_grey_masks_is_a_whole_description(
    draw, ids_mask, grey
):
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[:, 10:] = (128, 64, 128)
    root = draw({"a": mask, "b": mask, "c": ids_mask(*grey)})
    fix = checked(root).errors[0].fix
    (root / "dataset.yaml").write_text(fix.partition(":\n")[2])
    assert checked(root).ok
    dataset = open_dataset(root)
    read = np.unique(read_mask(dataset.samples[0].mask, dataset.info)).tolist()
    if max(grey) in {0, 255}:  # a mask that happens to be black, or black and white
        assert "class ids" not in fix
        assert len(read) == 2
    else:
        assert "class ids: save this one like them" in fix


def test_colours_of_a_declared_palette_are_proposed(draw):
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[:, 10:] = (128, 64, 128)
    root = draw({"a": mask}, yaml=YAML + "\npalette: ['#804080', '#00008e']")
    assert "{'#804080': road, '#000000': ignore}" in checked(root).errors[0].fix


def test_a_colour_mask_among_masks_of_ids(draw, ids_mask):
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[:, 10:] = (128, 64, 128)
    text = YAML + "\npalette: ['#804080', '#000000']"
    root = draw({"a": ids_mask(0, 1), "b": mask, "c": ids_mask(1)}, yaml=text)
    (problem,) = checked(root).errors
    assert "save this one like them" in problem.fix
    (root / "dataset.yaml").write_text(text + "\n" + problem.fix.partition(":\n")[2])
    assert checked(root).ok
    dataset = open_dataset(root)
    read = [np.unique(read_mask(s.mask, dataset.info)).tolist() for s in dataset.samples]
    assert read == [[0, 1], [0, 1], [1]]


def test_undeclared_colours(draw):
    mask = np.zeros((40, 48, 3), np.uint8)
    mask[:, 10:] = (1, 2, 3)
    root = draw({"a": mask}, yaml=YAML + "\nlabel_map: {'#000000': road, '#ffffff': car}")
    report = checked(root)
    assert codes(report, "error") == ["undeclared-colours"]
    assert "#010203" in report.errors[0].message


def test_photographs_as_masks(draw):
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    report = checked(draw({"a": noise}))
    assert "no labels" in report.errors[0].fix


def test_jpeg_masks(sound):
    (sound / "masks" / "a.png").unlink()
    Image.new("L", (48, 40)).save(sound / "masks" / "a.jpg")
    report = checked(sound)
    assert codes(report, "error") == ["unreadable"]
    assert "JPEG" in report.errors[0].message
    assert "PNG" in report.errors[0].fix


@pytest.mark.parametrize("yaml", [None, "classes: [back, front]"])
def test_binary_masks(draw, ids_mask, yaml):
    root = draw({"a": ids_mask(0, 255), "b": ids_mask(255), "c": ids_mask(0)}, yaml=yaml)
    report = checked(root)
    assert codes(report, "error") == ["binary-mask"]
    assert [p.file[-5:] for p in report.errors] == ["a.png", "b.png"]
    names = "background: object" if yaml is None else "back: front"
    first, _, second = names.partition(": ")
    assert f"label_map: {{0: {first}, 255: {second}}}" in report.errors[0].fix
    described = "" if yaml is None else yaml
    (root / "dataset.yaml").write_text(described + report.errors[0].fix.partition(":")[2])
    assert checked(root).ok


def test_an_ignored_255_among_classes_is_no_binary_mask(draw, ids_mask):
    assert checked(draw({"a": ids_mask(0, 1, 255), "b": ids_mask(0, 255)})).ok


def test_all_ignored(sound, ids_mask):
    Image.fromarray(ids_mask(255)).save(sound / "masks" / "a.png")
    report = checked(sound)
    assert codes(report) == ["all-ignored"]
    assert report.ok


def test_class_absent_from_train(sound, ids_mask):
    for name in "abc":
        Image.fromarray(ids_mask(0)).save(sound / "masks" / f"{name}.png")
    report = checked(sound)
    assert codes(report, "warning") == ["class-absent"]
    assert "'car'" in report.warnings[0].message
    assert report.stats.absent == ("car",)


def test_one_class(draw, ids_mask):
    report = checked(draw({"a": ids_mask(0), "b": ids_mask(0)}))
    assert codes(report, "error") == ["one-class"]


def test_no_masks(draw):
    report = checked(draw({"a": None, "b": None}))
    assert codes(report) == ["no-masks"]
    assert report.ok
    assert report.stats.unlabeled_share == 1


def test_tiny_images(draw, ids_mask):
    masks = {"a": np.zeros((1, 1), np.uint8), "b": ids_mask(0, 1), "c": ids_mask(0, 1)}
    report = checked(draw(masks, yaml=YAML))
    assert codes(report, "error") == []
    (tiny,) = [p for p in report.warnings if p.code == "tiny-image"]
    assert tiny.file.endswith("a.jpg")
    assert "1 x 1" in tiny.message


def test_split_problems(sound):
    (sound / "splits" / "train.txt").write_text("a\nb\nd\nmissing\n")
    (sound / "splits" / "test.txt").write_text("# nothing\n")
    (sound / "masks" / "d.png").unlink()
    report = checked(sound)
    expected = ["empty-split", "mask-missing", "split-overlap", "split-unknown-id"]
    assert codes(report, "error") == expected
    by_code = {p.code: p for p in report.errors}
    assert "'test'" in by_code["empty-split"].message
    assert by_code["mask-missing"].file == "d"
    assert "1 images are in both 'train' and 'val': d" in by_code["split-overlap"].message
    assert by_code["split-unknown-id"].file.endswith("train.txt")


def test_test_images_need_no_masks(draw, ids_mask):
    masks = {"a": ids_mask(0, 1), "v": ids_mask(0, 1), "t": None}
    splits = {"train": ["a"], "val": ["v"], "test": ["t"]}
    report = checked(draw(masks, yaml=YAML, splits=splits))
    assert report.ok
    assert codes(report) == ["mask-missing"]


def test_shared_val_and_test_are_a_warning(sound):
    (sound / "splits" / "test.txt").write_text("d\n")
    report = checked(sound)
    assert codes(report, "error") == []
    assert codes(report, "warning") == ["split-overlap"]


def test_listing_problems_are_part_of_the_report(sound):
    Image.new("RGB", (48, 40)).save(sound / "images" / "a.png")
    Image.new("L", (48, 40)).save(sound / "masks" / "zz.png")
    assert codes(checked(sound)) == ["duplicate-id", "orphan-mask"]


def test_all_problems_come_together_and_as_json(sound, ids_mask):
    cut(sound / "images" / "a.jpg")
    Image.fromarray(ids_mask(0, 7)).save(sound / "masks" / "b.png")
    Image.fromarray(ids_mask(0, 1)[:30]).save(sound / "masks" / "c.png")
    report = checked(sound)
    assert codes(report, "error") == ["size-mismatch", "undeclared-values", "unreadable"]
    with pytest.raises(DataError, match="3 problems") as caught:
        report.raise_on_errors(sound)
    assert all(code in str(caught.value) for code in codes(report, "error"))
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is False
    assert len(plain["problems"]) == 3
    assert plain["stats"]["images"] == 4


def test_only_chosen_splits_are_read(sound):
    cut(sound / "masks" / "a.png")
    assert checked(sound, splits=["val"]).ok
    assert not checked(sound, splits=["train", "val"]).ok


def test_progress(sound):
    calls = []
    checked(sound, progress=lambda *a: calls.append(a))
    assert calls[-1] == (4, 4)


def test_images_of_every_kind_pass(draw, ids_mask):
    root = draw({i: ids_mask(0, 1) for i in "abcdef"}, yaml=YAML)
    for path in (root / "images").iterdir():
        path.unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 4)).astype(np.uint8)
    images = root / "images"
    Image.fromarray(pixels).save(images / "a.png")
    Image.fromarray(pixels[..., :3]).quantize(8).save(images / "b.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(images / "c.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels[..., :3].transpose(1, 0, 2)).save(images / "d.jpg", exif=exif)
    Image.fromarray(pixels[..., 0]).save(images / "e.bmp")
    Image.fromarray(pixels[..., :3]).convert("CMYK").save(images / "f.tiff")
    report = checked(root, decode_images=True)
    assert codes(report, "error") == []
    dataset = open_dataset(root)
    assert {read_image(s.image).shape for s in dataset.samples} == {(40, 48, 3)}


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(data=st.data())
def test_whatever_lies_in_masks_is_reported_or_right(draw, tmp_path_factory, data):
    """Random modes, values and damage: the check and the reader agree on every file."""
    root = tmp_path_factory.mktemp("set")
    top = data.draw(st.sampled_from([1, 2, 5, 255]))
    mode = data.draw(st.sampled_from(["1", "L", "P", "I;16", "RGB", "RGBA", "LA"]))
    size = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    seed = data.draw(st.integers(0, 99))
    values = np.random.default_rng(seed).integers(0, top + 1, size).astype(np.uint8)
    if mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16) * 100)
    else:
        picture = Image.fromarray(values).convert(mode)
    draw({"a": picture, "b": np.zeros((3, 3), np.uint8)}, yaml=YAML, root=root, sizes={"a": (4, 4)})
    path = root / "masks" / "a.png"
    if data.draw(st.booleans()):
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = checked(root)
        dataset = open_dataset(root, strict=False)
        found = {p.code for p in report.errors if p.file == str(path)}
        readable = True
        try:
            mask = read_mask(path, dataset.info)
        except DataError:
            readable = False
    unfit = {"unreadable", "undeclared-values", "colour-mask"}
    if readable:
        assert not found & unfit
        assert ("size-mismatch" in found) == (mask.shape != (4, 4))
        assert set(np.unique(mask).tolist()) <= {0, 1, 255}
    else:
        assert found & unfit or {"binary-mask"} & {p.code for p in report.errors}

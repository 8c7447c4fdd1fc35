import base64
import io
import json

import numpy as np
from PIL import Image

from pixelcontrast.report.classes import palette_of
from pixelcontrast.report.groups import grouped
from pixelcontrast.report.pictures import (
    IGNORED,
    SMALLEST,
    WRONG,
    _width,
    colour_css,
    error_map,
    gallery,
)
from pixelcontrast.report.run import read_run


def shown(*folders):
    runs = [read_run(folder) for folder in folders]
    return gallery(grouped(runs), palette_of(runs[0]))


def decoded(picture):
    kind, data = picture.data.removeprefix("data:").split(";base64,")
    return kind, Image.open(io.BytesIO(base64.b64decode(data)))


def test_error_map_marks_wrong_and_unlabelled_pixels():
    image = np.full((1, 3, 3), 90, np.uint8)
    truth = np.array([[1, 2, 255]], np.uint8)
    picture = error_map(image, truth, np.array([[1, 1, 1]], np.uint8), 255)
    right, wrong, ignored = picture[0].tolist()
    assert right[0] == right[1] == right[2]
    assert tuple(wrong) == WRONG
    assert np.abs(np.array(ignored) - IGNORED).max() < 30


def test_one_run_has_rows_of_four(make_run):
    found = shown(make_run())
    assert found.columns == 2
    captions = [picture.caption for picture in found.panel[0].pictures]
    assert captions == ["Image", "Ground truth", "Prediction", "Errors"]
    assert found.panel[0].id == "street/0000"
    assert [row.miou for row in found.worst] == sorted(row.miou for row in found.worst)


def test_pictures_show_the_colours_of_the_palette(make_run):
    folder = make_run()
    kind, truth = decoded(shown(folder).panel[0].pictures[1])
    assert kind == "image/png"
    stored = np.asarray(Image.open(folder / "evaluation/val/images/000_truth.png"))
    colours = np.asarray(truth.convert("RGB"))
    palette = palette_of(read_run(folder))
    assert tuple(colours[-1, 0]) == tuple(palette[stored[-1, 0]])
    assert tuple(colours[0, 0]) == IGNORED


def test_several_runs_stand_side_by_side(make_run):
    found = shown(make_run("a", method="supervised"), make_run("b"))
    assert found.columns == 3
    captions = [picture.caption for picture in found.panel[0].pictures]
    assert captions[2:] == [
        "Supervised: prediction",
        "Supervised: errors",
        "PiCo: prediction",
        "PiCo: errors",
    ]
    assert len(found.worst[0].pictures) == 4


def test_files_of_different_sizes_are_brought_together(make_run):
    folder = make_run()
    path = folder / "evaluation/val/images/000_image.jpg"
    Image.open(path).resize((640, 480)).save(path)
    sizes = {decoded(picture)[1].size for picture in shown(folder).panel[0].pictures}
    assert sizes == {(480, 360)}


def test_colour_label_maps_are_refused_by_name(make_run):
    folder = make_run()
    path = folder / "evaluation/val/images/000_pred.png"
    Image.open(path).convert("RGB").save(path)
    found = shown(folder)
    assert found.problems == ("pictures of street/0000 in run cannot be read",)
    assert len(found.panel) == 1


def test_nothing_to_show(make_run):
    folder = make_run(pictures=0)
    assert shown(folder).panel == ()
    scores = folder / "evaluation/val/scores.json"
    scores.write_text(json.dumps({}))
    assert shown(folder).columns == 0


def test_small_label_maps_keep_their_edges(make_run):
    small = shown(make_run("small", size=(48, 64))).panel[0].pictures
    large = shown(make_run("large", size=(180, 240))).panel[0].pictures
    assert [picture.crisp for picture in small] == [False, True, True, True]
    assert not any(picture.crisp for picture in large)


def test_many_pictures_are_small():
    assert _width(8) == 480
    assert _width(8) > _width(30) > _width(60) > _width(200) == SMALLEST


def test_css_colours():
    assert colour_css((0, 128, 255)) == "#0080ff"

"""Miniatures of the official layouts: right file names, modes and ids; the pictures are drawn."""

import io
import os
from functools import cache

import numpy as np
from PIL import Image
from scipy.io import savemat

from pixelcontrast.data.official import voc_colours

HEIGHT, WIDTH = 48, 64


class Drawing:
    """Writes files below a folder; equal ones are hard links, so that many cost little."""

    def __init__(self, root):
        self.root = root
        self._first = {}

    def _put(self, path, data):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = (path.suffix, data)
        if key in self._first:
            os.link(self._first[key], path)
        else:
            path.write_bytes(data)
            self._first[key] = path

    def image(self, path):
        self._put(path, _image(str(path)[-4:]))

    def mask(self, path, values, *, palette=False):
        self._put(path, _mask(tuple(values), palette))

    def deep_mask(self, path, values):
        self._put(path, _encoded(Image.fromarray(stripes(values, np.uint16)), path))

    def matlab(self, path, content):
        buffer = io.BytesIO()
        savemat(buffer, content, do_compression=True)
        self._put(path, buffer.getvalue())

    def lines(self, path, lines):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))


def stripes(values, dtype):
    """(HEIGHT, WIDTH) with the given values in rows of equal height, as far as there is room."""
    rows = np.array(values)[np.arange(HEIGHT * WIDTH) * len(values) // (HEIGHT * WIDTH)]
    return rows.reshape(HEIGHT, WIDTH).astype(dtype)


@cache
def _image(suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return _encoded(Image.fromarray(pixels), suffix)


@cache
def _mask(values, palette):
    picture = Image.fromarray(stripes(values, np.uint8))
    if palette:
        picture = picture.convert("P")
        picture.putdata(stripes(values, np.uint8).ravel())
        picture.putpalette([c for colour in voc_colours(256) for c in colour])
    return _encoded(picture, ".png")


def _encoded(picture, path):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if str(path).endswith(".png") else "JPEG")
    return buffer.getvalue()


VOC_TRAIN, VOC_SBD, VOC_VAL = ("2007_000032", "2007_000039"), ("2008_000002",), ("2007_000033",)


def draw_voc(root, *, train=(*VOC_TRAIN, *VOC_SBD), masks="aug"):
    """VOC 2012; `masks` says where SBD's come from: `aug`, `sbd` (MATLAB) or `none`."""
    draw = Drawing(root)
    home = "VOCdevkit/VOC2012"
    fine = [i for i in train if i not in VOC_SBD]
    ids = (*range(21), 255)
    for name in (*train, *VOC_VAL, "2007_000027"):  # the last one is in no list
        draw.image(f"{home}/JPEGImages/{name}.jpg")
    for name in (*fine, *VOC_VAL):
        draw.mask(f"{home}/SegmentationClass/{name}.png", ids, palette=True)
    draw.lines(f"{home}/ImageSets/Segmentation/train.txt", fine)
    draw.lines(f"{home}/ImageSets/Segmentation/val.txt", VOC_VAL)
    if masks == "aug":
        for name in (*train, *VOC_VAL):
            draw.mask(f"{home}/SegmentationClassAug/{name}.png", ids)
    if masks == "sbd":
        for name in VOC_SBD:
            # The structure of SBD: GTcls with Boundaries, Segmentation and CategoriesPresent.
            content = {"Segmentation": stripes(range(21), np.uint8), "CategoriesPresent": [1, 2]}
            path = f"benchmark_RELEASE/dataset/cls/{name}.mat"
            draw.matlab(path, {"GTcls": content})
    return root


CITY = {"train": ("aachen/aachen_000000_000019", "bochum/bochum_000000_000313"),
        "val": ("frankfurt/frankfurt_000000_000294",),
        "test": ("berlin/berlin_000000_000019",)}  # fmt: skip


def draw_cityscapes(root, *, train=CITY["train"]):
    """Cityscapes with all label ids 0..33 in each mask."""
    draw = Drawing(root)
    for split, names in {**CITY, "train": train}.items():
        for name in names:
            draw.image(f"leftImg8bit/{split}/{name}_leftImg8bit.png")
            draw.mask(f"gtFine/{split}/{name}_gtFine_labelIds.png", range(34))
            draw.deep_mask(f"gtFine/{split}/{name}_gtFine_instanceIds.png", (7, 23, 26001, 26002))
    return root


def draw_ade20k(root, *, train=("ADE_train_00000001", "ADE_train_00000002")):
    """ADE20K with the ids 0..150 in each mask."""
    draw = Drawing(root / "ADEChallengeData2016")
    for folder, names in (("training", train), ("validation", ("ADE_val_00000001",))):
        for name in names:
            draw.image(f"images/{folder}/{name}.jpg")
            draw.mask(f"annotations/{folder}/{name}.png", range(151))
    return root


CONTEXT = {"train": ("2008_000002", "2008_000003"), "val": ("2008_000008",)}


def draw_pascal_context(root, *, matlab=True):
    """PASCAL-Context as published, or in the form of PNG files of 60 ids."""
    draw = Drawing(root)
    draw.image("VOCdevkit/VOC2010/JPEGImages/2009_000001.jpg")
    for split, names in CONTEXT.items():
        kind = "Main" if matlab else "SegmentationContext"
        # VOC's own lists hold images that Context does not label.
        extra = ("2009_000001",) if matlab else ()
        draw.lines(f"VOCdevkit/VOC2010/ImageSets/{kind}/{split}.txt", (*names, *extra))
        for name in names:
            draw.image(f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg")
        for name in names:
            if matlab:
                label_map = {"LabelMap": stripes(range(460), np.uint16)}
                draw.matlab(f"trainval/{name}.mat", label_map)
            else:
                draw.mask(f"VOCdevkit/VOC2010/SegmentationClassContext/{name}.png", range(60))
    return root


STUFF10K = {"train": ("COCO_train2014_000000000077", "COCO_train2014_000000000110"),
            "test": ("COCO_train2014_000000000127",)}  # fmt: skip


def draw_stuff10k(root):
    """COCO-Stuff 10k, with every value that occurs."""
    draw = Drawing(root)
    unused = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
    values = [value for value in range(183) if value not in unused]
    for split, names in STUFF10K.items():
        draw.lines(f"imageLists/{split}.txt", names)
        for name in names:
            draw.image(f"images/{name}.jpg")
            draw.matlab(f"annotations/{name}.mat", {"S": stripes(values, np.uint8)})
    return root


COCO = {"train": ("000000000009", "000000000025"), "val": ("000000000139",)}


def draw_coco(root, *, train=COCO["train"]):
    """COCO with masks of 81 ids."""
    draw = Drawing(root)
    for split, names in {**COCO, "train": train}.items():
        for name in names:
            draw.image(f"{split}2017/{name}.jpg")
            draw.mask(f"masks/{name}.png", range(81))
    return root


def draw_stuff(root, *, curated=False):
    """COCO-Stuff of 2017, with every value that occurs."""
    draw = Drawing(root)
    unused = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
    values = [value for value in (*range(182), 255) if value not in unused]
    for split, names in COCO.items():
        for name in names:
            draw.image(f"{split}2017/{name}.jpg")
            draw.mask(f"stuffthingmaps/{split}2017/{name}.png", values)
        if curated:
            draw.lines(f"curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt", names[:1])
    return root


CAMVID = {"train": ("0001TP_006690", "0006R0_f00930"), "val": ("0016E5_07959",),
          "test": ("Seq05VD_f00000",)}  # fmt: skip


def draw_camvid(root):
    """CamVid in the layout of the SegNet tutorial."""
    draw = Drawing(root)
    for split, names in CAMVID.items():
        draw.lines(f"{split}.txt", names)
        for name in names:
            draw.image(f"{split}/{name}.png")
            draw.mask(f"{split}annot/{name}.png", range(12))
    return root

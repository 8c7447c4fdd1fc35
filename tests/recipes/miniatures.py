"""Drawn miniatures of the published data sets with the images that recipes name."""

from tests.data import layouts

from pixelcontrast.data.published import published_list


def listed(*names):
    return tuple(dict.fromkeys(i for name in names for i in published_list(name)))


DRAW = {
    "camvid": layouts.draw_camvid,
    "pascal_context": layouts.draw_pascal_context,
    "coco_stuff10k": layouts.draw_stuff10k,
    "cityscapes": lambda root: layouts.draw_cityscapes(
        root, train=listed("u2pl/cityscapes/1_8", "unimatch/cityscapes/1_8")
    ),
    "cityscapes27": layouts.draw_cityscapes,
    "coco_stuff27": lambda root: layouts.draw_stuff(root, curated=True),
    "voc": lambda root: layouts.draw_voc(
        root, train=listed("u2pl/voc/blender_2646", "u2pl/voc/classic_183", "u2pl/voc/blender_662")
    ),
    "ade20k": lambda root: layouts.draw_ade20k(
        root, train=(*published_list("unimatch/ade20k/1_8"), "ADE_train_00000001")
    ),
    "coco": lambda root: layouts.draw_coco(
        root, train=(*published_list("unimatch/coco/1_128"), "000000000009")
    ),
}

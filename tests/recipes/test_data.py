"""Every recipe on a published data set opens a miniature of it in its official layout."""

from dataclasses import replace

import pytest
from tests.data import layouts

from pixelcontrast.data import open_dataset, recognise
from pixelcontrast.data.guides import GUIDES
from pixelcontrast.data.published import published_list, published_lists
from pixelcontrast.engine.prepare import refuse_unknown
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.recipes import load_recipe, recipe_names

# Recipes with the same data section need to be looked at once.
SECTIONS = {
    refuse_unknown(load_recipe(name)).data: name
    for name in recipe_names()
    if load_recipe(name)["data"]["name"] in GUIDES
}


def listed(*names):
    return tuple(dict.fromkeys(i for name in names for i in published_list(name)))


DRAW = {
    "camvid": layouts.draw_camvid,
    "pascal_context": layouts.draw_pascal_context,
    "coco_stuff10k": layouts.draw_stuff10k,
    "cityscapes": lambda root: layouts.draw_cityscapes(
        root, train=listed("u2pl/cityscapes/1_8", "unimatch/cityscapes/1_8")
    ),
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


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """The drawn folder of a data set, one a module."""
    drawn = {}

    def folder(name):
        if name not in drawn:
            drawn[name] = DRAW[name](tmp_path_factory.mktemp(name))
        return drawn[name]

    return folder


@pytest.mark.parametrize("config", SECTIONS, ids=SECTIONS.values())
def test_its_data_set_opens_with_its_labels(config, miniature):
    root = miniature(config.name)
    sources = gather_sources(replace(config, root=root, check=False))
    assert sources.labeled
    assert sources.val
    assert not {s.id for s in sources.labeled} & {s.id for s in sources.unlabeled}
    if isinstance(config.labeled, str):
        assert len(sources.labeled) == published_lists()[config.labeled].count
        assert sources.describe()["splits"]["labeled"] == {
            "count": len(sources.labeled),
            "sha256": published_lists()[config.labeled].sha256,
            "name": config.labeled,
        }
    elif isinstance(config.labeled, int):
        assert len(sources.labeled) == config.labeled


@pytest.mark.parametrize("name", DRAW)
def test_its_layout_is_recognised(name, miniature):
    assert recognise(miniature(name)) == name
    assert open_dataset(miniature(name)).info.name == name

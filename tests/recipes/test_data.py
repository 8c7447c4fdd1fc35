"""Every recipe on a published data set opens a miniature of it in its official layout."""

from dataclasses import replace

import pytest
from tests.recipes.miniatures import DRAW

from pixelcontrast.data import open_dataset, recognise
from pixelcontrast.data.guides import GUIDES
from pixelcontrast.data.published import published_lists
from pixelcontrast.engine.prepare import refuse_unknown
from pixelcontrast.engine.sources import gather_sources
from pixelcontrast.recipes import load_recipe, recipe_names

# Recipes with the same data section need to be looked at once.
SECTIONS = {
    refuse_unknown(load_recipe(name)).data: name
    for name in recipe_names()
    if load_recipe(name)["data"]["name"] in GUIDES
}


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
    assert recognise(miniature(name)) == name.removesuffix("27")  # the same layout, read otherwise
    assert open_dataset(miniature(name), name).info.name == name

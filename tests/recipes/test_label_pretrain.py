from dataclasses import replace

import pytest

from pixelcontrast.engine.prepare import refuse_unknown
from pixelcontrast.recipes import load_recipe, recipe_names

RECIPES = [name for name in recipe_names() if name.startswith("label_pretrain")]
PAPER = {"voc_2118", "cityscapes_596"}


def stages(name):
    return {stage.name: stage for stage in refuse_unknown(load_recipe(name)).stages}


@pytest.mark.parametrize("name", [n for n in RECIPES if "_semi_" not in n])
def test_fine_tuning_is_the_supervised_twin(name):
    twin = refuse_unknown(load_recipe(name.replace("label_pretrain", "supervised", 1)))
    tuned = replace(stages(name)["finetune"].config, name=twin.name)
    if name.removeprefix("label_pretrain_") in PAPER:
        # The paper trains its baseline longer and at a higher rate.
        assert (tuned.optim.lr, tuned.train.steps) == (0.007, 50_000)
        assert (twin.optim.lr, twin.train.steps) == (0.03, 300_000)
        tuned = replace(tuned, optim=twin.optim, train=twin.train)
    assert tuned == twin


@pytest.mark.parametrize("name", RECIPES)
def test_pretraining_has_the_papers_loss_and_distortion(name):
    config = stages(name)["pretrain"].config
    assert (config.method.variant, config.method.temperature) == ("cross_image", 0.07)
    assert (config.method.loss_size, config.method.embedding.layers) == (65, 3)
    assert (config.strong.brightness, config.strong.hue, config.strong.blur_probability) == (
        0.8, 0.2, 0.0,
    )  # fmt: skip
    assert (config.view.colour, config.optim.schedule) == (None, "cosine")


@pytest.mark.parametrize("name", [n for n in RECIPES if "_semi_" in n])
def test_the_second_round_starts_anew_and_repeats_the_first(name):
    first, second = stages(name), stages(name.replace("_semi_", "_"))
    assert [first[s] for s in second] == [
        replace(stage, config=replace(stage.config, name=name)) for stage in second.values()
    ]
    again = first["pretrain_again"]
    assert again.settings.start == "initial"
    assert again.config == first["pretrain"].config
    assert again.settings.pseudo_labels.threshold == 0.8
    wanted = {"background": 0.97} if "voc" in name else {}
    assert again.settings.pseudo_labels.thresholds == wanted

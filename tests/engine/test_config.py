import pytest

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.engine.config import dump_config, parse_config
from pixelcontrast.engine.prepare import prepare, refuse_unknown
from pixelcontrast.recipes import load_recipe, override, recipe_names

MINIMAL = {"method": {"name": "pico"}}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_parses(name):
    config = refuse_unknown(load_recipe(name))
    assert config.name == name
    assert parse_config(dump_config(config)) == config


def test_defaults_of_pico_are_the_papers():
    method = parse_config(MINIMAL).method
    assert (method.weight, method.temperature, method.hard_fraction) == (1.0, 0.1, 0.5)
    assert method.embedding.dim == 256


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [
        ("data.crop_szie=1", "unknown key 'data.crop_szie'"),
        ("view.crpo=[1, 2]", "did you mean 'crop'"),
        ("method.temprature=0.1", "did you mean 'temperature'"),
        ("method.embedding.dimm=3", "did you mean 'dim'"),
        ("optm.lr=0.1", "did you mean 'optim'"),
        ("method.name=pica", "did you mean 'pico'"),
        ("optim.lr=fast", "optim.lr"),
        ("optim.name=adam", "optim.name"),
        ("train.steps=1.5", "train.steps"),
        ("view.crop=[96]", "view.crop"),
        ("train=5", "train is a section"),
        ("seed=abc", "seed"),
        ("model.output_stride=12", "model.output_stride"),
    ],
)
def test_mistakes_are_named(assignment, hint):
    with pytest.raises(ConfigError) as caught:
        parse_config(override(MINIMAL, [assignment]))
    assert hint in str(caught.value)


def test_numbers_in_scientific_notation_are_numbers():
    config = parse_config(override(MINIMAL, ["optim.lr=1e-3", "optim.weight_decay=5e-4"]))
    assert (config.optim.lr, config.optim.weight_decay) == (1e-3, 5e-4)


@pytest.mark.parametrize(("value", "kind"), [("10", int), ("0.125", float), ("labeled", str)])
def test_labeled_may_be_a_count_a_fraction_or_a_split(value, kind):
    labeled = parse_config(override(MINIMAL, [f"data.labeled={value}"])).data.labeled
    assert type(labeled) is kind


def test_a_method_must_be_named():
    with pytest.raises(ConfigError, match="no method is named"):
        parse_config({})


@pytest.mark.parametrize("section", ["method", "optim"])
def test_a_warm_up_as_long_as_the_run_is_refused(tiny, section):
    tiny["method"] = {"name": "pico"}
    tiny[section]["warmup_steps"] = 6
    with pytest.raises(ConfigError, match=rf"{section}\.warmup_steps = 6 leaves nothing"):
        prepare(tiny)


def test_automatic_warm_ups_are_shares_of_the_run_and_said(tiny):
    tiny["method"] = {"name": "pico", "warmup_steps": "auto"}
    tiny["optim"]["warmup_steps"] = "auto"
    tiny["train"]["steps"] = 100
    config, _, notes = prepare(tiny)
    assert (config.method.warmup_steps, config.optim.warmup_steps) == (10, 2)
    assert any("method.warmup_steps = 10" in note for note in notes)


def test_few_validation_images_are_warned_of(tiny):
    tiny["method"] = {"name": "supervised"}

    def notes():
        return [note for note in prepare(tiny)[2] if "validation" in note]

    (note,) = notes()
    assert "score of 4 validation images says little" in note
    assert "splits/val.txt" in note
    tiny["data"]["val"] = "train"
    assert not notes()


def test_a_contrast_term_is_read_by_its_name():
    tree = {"method": {"name": "unimatch", "contrast": {"name": "pico", "temperature": 0.2}}}
    config = parse_config(tree)
    assert config.method.contrast.name == "pico"
    assert config.method.contrast.config.temperature == 0.2
    assert parse_config(dump_config(config)) == config
    tree["method"]["contrast"] = None
    assert parse_config(tree).method.contrast is None


@pytest.mark.parametrize(
    ("method", "contrast", "message"),
    [
        ("unimatch", {"name": "pcio"}, "unknown contrast term 'pcio'"),
        ("unimatch", {"temperature": 0.2}, "no contrast term is named"),
        ("unimatch", {"name": "pico", "temprature": 0.2}, "did you mean 'temperature'"),
        ("supervised", {"name": "pico"}, "unknown key 'method.contrast'"),
    ],
)
def test_mistakes_in_a_contrast_term_are_named(method, contrast, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"method": {"name": method, "contrast": contrast}})

import subprocess
import sys

import pytest

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.recipes import (
    dump,
    load_recipe,
    override,
    parse_yaml,
    recipe_names,
    recipe_text,
    summary,
)


def test_every_contrast_recipe_has_a_supervised_twin_that_differs_in_the_method_alone():
    for name in recipe_names():
        if not name.startswith(("pico", "contextrast")):
            continue
        data = name.removeprefix("contextrast").removeprefix("pico").removeprefix("_memory")
        recipe, twin = load_recipe(name), load_recipe(f"supervised{data}")
        for tree in (recipe, twin):
            del tree["name"], tree["method"]
        assert recipe == twin, name


GENERAL = {"fixmatch", "mean_teacher", "rankmatch", "u2pl", "unimatch", "unimatch_v2"}


def semi_supervised():
    """Recipes for few labels with their supervised twins."""
    few = [n for n in recipe_names() if n.endswith("_few") and not n.startswith("supervised")]
    data = {n: n[n.index("scenes" if "scenes" in n else "camvid") :] for n in few}
    return [
        *((n, f"supervised_{d}") for n, d in data.items()),
        *((n, "supervised") for n in GENERAL),
    ]


@pytest.mark.parametrize(("name", "supervised"), sorted(semi_supervised()))
def test_every_recipe_for_few_labels_has_a_supervised_twin(name, supervised):
    recipe, twin = load_recipe(name), load_recipe(supervised)
    assert recipe["train"].pop("batch_unlabeled") == recipe["train"]["batch"]
    for tree in (recipe, twin):
        del tree["name"], tree["method"]
        tree.pop("strong", None)
    assert recipe == twin


def test_overrides_are_yaml_and_leave_the_original_alone():
    tree = {"a": {"b": 1}, "c": 2}
    changed = override(tree, ["a.b=[1, 2]", "a.new.deep=true", "c=null", "d=text"])
    assert changed == {"a": {"b": [1, 2], "new": {"deep": True}}, "c": None, "d": "text"}
    assert tree == {"a": {"b": 1}, "c": 2}


def test_names_of_splits_are_not_numbers():
    assert override({}, ["a=1_8", "b=18", "c=-2", "d=0.5", "e=1e-4"]) == {
        "a": "1_8", "b": 18, "c": -2, "d": 0.5, "e": "1e-4",
    }  # fmt: skip
    assert parse_yaml("labeled: 1_8", "text") == {"labeled": "1_8"}


@pytest.mark.parametrize("assignment", ["nothing", "=3", "c.d=1"])
def test_bad_overrides_are_named(assignment):
    with pytest.raises(ConfigError, match=assignment.split("=")[0] or "="):
        override({"c": 2}, [assignment])


def test_unknown_recipe_suggests_the_nearest():
    with pytest.raises(ConfigError, match="pico_camvid"):
        recipe_text("pico_camvd")


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="missing"):
        load_recipe(str(tmp_path / "missing.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match="broken"):
        load_recipe(str(broken))
    with pytest.raises(ConfigError, match="mapping"):
        parse_yaml("- 1", "list")


def test_dump_round_trips():
    tree = load_recipe("pico_camvid_small")
    assert parse_yaml(dump(tree), "dump") == tree


def test_every_recipe_says_what_it_is_for():
    assert all(len(summary(name)) > 10 for name in recipe_names())


def test_recipes_do_not_load_torch():
    code = "import sys, pixelcontrast, pixelcontrast.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

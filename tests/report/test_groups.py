import statistics

import pytest
import yaml

from pixelcontrast.report.groups import Spread, grouped, reference_of
from pixelcontrast.report.run import read_run


def test_seeds_and_workers_do_not_separate_runs(make_run):
    runs = [make_run(f"r{seed}", seed=seed, steps=20, pictures=0) for seed in range(3)]
    config = yaml.safe_load((runs[1] / "config.yaml").read_text())
    config["data"]["workers"] = 8
    config["name"] = "another"
    (runs[1] / "config.yaml").write_text(yaml.safe_dump(config))
    (group,) = grouped([read_run(run) for run in runs])
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert group.run_label(group.runs[2]) == "PiCo, seed 2"
    scores = [run.miou for run in group.runs]
    spread = group.spread(lambda run: run.miou)
    assert spread.mean == pytest.approx(statistics.mean(scores))
    assert spread.std == pytest.approx(statistics.stdev(scores))
    assert group.representative.miou == max(scores)


def test_any_other_setting_separates_runs(make_run):
    one, other = make_run("one", steps=20, pictures=0), make_run("other", steps=40, pictures=0)
    groups = grouped([read_run(one), read_run(other)])
    assert [group.label for group in groups] == ["one", "other"]  # method and name are the same


def test_the_reference_is_the_supervised_run(make_run):
    folders = [make_run(m, method=m, steps=20, pictures=0) for m in ("pico", "supervised")]
    groups = grouped([read_run(folder) for folder in folders])
    assert [group.label for group in groups] == ["PiCo", "Supervised"]
    assert reference_of(groups).label == "Supervised"
    assert reference_of(groups[:1]).label == "PiCo"
    assert groups[0].colour != groups[1].colour


def test_runs_without_configuration_stay_apart(make_run):
    folders = [make_run(name, steps=20, pictures=0) for name in ("a", "b")]
    for folder in folders:
        (folder / "config.yaml").unlink()
    assert len(grouped([read_run(folder) for folder in folders])) == 2


def test_spread_of_few_values():
    assert Spread(()).mean is None
    assert Spread((0.5,)).mean == 0.5
    assert Spread((0.5,)).std is None

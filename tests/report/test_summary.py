import json

import pytest

from pixelcontrast.report.groups import grouped, reference_of
from pixelcontrast.report.run import read_run
from pixelcontrast.report.summary import (
    comparisons,
    facts_of,
    lead_of,
    reproduction_of,
    title_of,
    warnings_of,
)


def groups_of(*folders):
    return grouped([read_run(folder) for folder in folders])


def test_facts_of_one_run(make_run):
    run = read_run(make_run(pictures=0))
    values = [(fact.value, fact.label) for fact in facts_of(run)]
    assert values[0] == (f"{100 * run.miou:.1f}", "mean IoU, split “val”")
    assert values[2] == ("8", "of 8 classes scored")
    assert values[3] == ("8 min", "training time")


def test_comparison(make_run):
    folders = [
        make_run(f"{method}{seed}", method=method, seed=seed, quality=quality, pictures=0)
        for method, quality in (("supervised", 0.5), ("pico", 0.95))
        for seed in range(2)
    ]
    groups = groups_of(*folders)
    plain, pico = comparisons(groups, reference_of(groups))
    assert plain.reference
    assert plain.delta is None
    assert pico.delta == pytest.approx(pico.miou.mean - plain.miou.mean)
    assert pico.labelled == 40
    assert "Over 2 seeds this is more than the spread" in lead_of(groups, groups[0])
    assert title_of(groups) == "PiCo against Supervised on streets"


def test_a_single_seed_is_not_trusted(make_run):
    groups = groups_of(
        make_run("a", method="supervised", pictures=0), make_run("b", method="pico", pictures=0)
    )
    assert "small differences can be chance" in lead_of(groups, groups[0])


def test_a_difference_inside_the_spread_is_called_so(make_run):
    folders = [
        make_run(f"{method}{seed}", method=method, seed=seed, quality=0.3 + seed / 2, pictures=0)
        for method in ("supervised", "pico")
        for seed in range(2)
    ]
    groups = groups_of(*folders)
    assert "within the spread of the seeds" in lead_of(groups, groups[0])


def test_warnings(make_run):
    done = make_run("done", pictures=0)
    assert warnings_of(groups_of(done)) == []
    stopped = make_run("stopped", status="stopped", pictures=0)
    (warning,) = warnings_of(groups_of(stopped))
    assert warning == (
        "this run was stopped before its planned end (step 400 of 400). Its scores are not final."
    )
    both = warnings_of(groups_of(done, stopped))
    assert both[0].startswith("stopped: this run was stopped")


def test_runs_without_scores_have_no_comparison(make_run):
    folders = [make_run(name, method=name, steps=20, pictures=0) for name in ("pico", "supervised")]
    for folder in folders:
        (folder / "evaluation/val/scores.json").unlink()
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "best": None}))
    groups = groups_of(*folders)
    assert lead_of(groups, groups[0]) == "The runs below have no scores to compare yet."


def test_reproduction_leaves_out_what_is_unknown(make_run):
    folder = make_run(pictures=0)
    rows = dict(reproduction_of(read_run(folder)))
    assert rows["seed"] == "0"
    assert rows["split val"] == "5 images, sha256 " + "cc" * 32
    (folder / "run.json").write_text("{}")
    assert set(dict(reproduction_of(read_run(folder)))) == {"seed", "folder"}

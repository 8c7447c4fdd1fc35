"""The report of a run with stages before the last one."""

import json

from pixelcontrast.report.curves import diagnostic_curves, learning_curves
from pixelcontrast.report.groups import grouped
from pixelcontrast.report.run import read_run
from pixelcontrast.report.words import settings

CONFIG = {
    "method": {"name": "label_pretrain"},
    "train": {"steps": 20},
    "stages": {
        "pretrain": {"train": {"steps": 40}},
        "finetune": {"method": {"name": "supervised"}, "pseudo_labels": {"threshold": 0.8}},
    },
}


def write_run(folder):
    (folder / "stages" / "pretrain").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"method": "label_pretrain", "status": "failed"}))
    (folder / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML
    tuned = [{"kind": "train", "step": s, "lr": 1, "loss": 2, "loss/ce": 2} for s in (1, 2)]
    before = [
        {"kind": "train", "step": s, "loss": 6, "loss/contrast": 6, "stat/hard_share": 0.5}
        for s in (10, 20, 30)
    ]
    for path, lines in ((folder, tuned), (folder / "stages" / "pretrain", before)):
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return read_run(folder)


def test_losses_and_statistics_of_earlier_stages_are_shown_by_name(tmp_path):
    run = write_run(tmp_path)
    groups = grouped([run])
    titles = [chart.title for chart in diagnostic_curves(groups)]
    assert "pretrain: Share of hard anchors" in titles
    losses = next(c for c in learning_curves(groups) if c.title == "Training loss")
    assert "pretrain/contrast" in str(losses)
    assert [line["step"] for line in run.train if "stage" in line] == [10, 20, 30]


def test_stages_are_said_and_progress_counts_the_last_one(tmp_path):
    from pixelcontrast.report.summary import warnings_of

    run = write_run(tmp_path)
    assert dict(settings(run))["Stages"] == (
        "pretrain (label-contrastive pretraining, 40 steps), then "
        "finetune (supervised, 20 steps, with pseudo-labels of the network before)."
    )
    assert "step 2 of 20" in warnings_of(grouped([run]))[0]

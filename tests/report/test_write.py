import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation import SegScores
from pixelcontrast.report import write_report

HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, anchors, text."""

    VOID = frozenset({"meta", "img", "link", "br", "path", "rect", "circle"})

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.text, self.attributes = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        opened = self.open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def report(tmp_path, *runs):
    text = write_report(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 1
    return page, text


def edit_record(run, **values):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_one_run(tmp_path, make_run):
    page, _ = report(tmp_path, make_run(splits=("test", "val"), ema=True))
    for words in (
        "PiCo on streets",
        "40 training images have labels",
        "mean IoU, split “val”",
        "averaged weights",
        "loss",
        "Similarity of pixel pairs",
        "Most frequent mistakes",
        "rare",
        "for decoder and heads",
        "0123456789abcdef with local changes",
        "pixelcontrast train pico_streets data.root=streets seed=0",
        "train.precision: fp32, because there is no GPU",
        "Scores by split",
        "40 images, sha256 " + "aa" * 32,
    ):
        assert words in page.words, words
    assert page.tags.count("img") == 2 * 4 + 2 * 4
    assert "Before you read on" not in page.words


def test_the_page_needs_nothing_from_elsewhere(tmp_path, make_run):
    page, text = report(tmp_path, make_run())
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "data", "poster", "srcset"):
            assert value.startswith(("data:image/", "#")), (tag, name, value)
    assert "link" not in page.tags
    assert "iframe" not in page.tags
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(value for _, name, value in page.attributes if "default-src" in value)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_the_policy_allows_exactly_the_script_of_the_page(tmp_path, make_run):
    page, text = report(tmp_path, make_run())
    script = text[text.index("<script>") + len("<script>") : text.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(value for _, _, value in page.attributes if "default-src" in value)
    assert f"script-src 'sha256-{digest}'" in policy


def test_both_themes_define_every_colour(tmp_path, make_run):
    _, text = report(tmp_path, make_run())
    style = text[text.index("<style>") : text.index("</style>")]
    blocks = re.findall(r"\{(color-scheme:[^}]*)\}", style)
    names = [set(re.findall(r"(--[\w-]+):", block)) for block in blocks]
    assert len(names) == 3
    assert names[0] == names[1] == names[2]
    assert blocks[1] == blocks[2]


def test_names_from_outside_are_text_never_markup(tmp_path, make_run):
    names = [f"{HOSTILE}{i}" for i in range(8)]
    run = make_run("<b>run", names=names)
    edit_record(
        run,
        name=HOSTILE,
        method=HOSTILE,
        command=HOSTILE,
        notes=[HOSTILE],
        versions={HOSTILE: HOSTILE},
        hardware={"cpu": HOSTILE, "cores": 2},
        status=HOSTILE,
    )
    scores = run / "evaluation" / "val" / "scores.json"
    values = json.loads(scores.read_text())
    values["split"] = HOSTILE
    for image in values["images"]:
        image["id"] = f'"><img src=x onerror=alert(1)>{image["id"]}'
    scores.write_text(json.dumps(values))
    lines = (run / "metrics.jsonl").read_text().replace("loss/contrast", f"loss/{HOSTILE}")
    lines = lines.replace("stat/anchors", f"stat/{HOSTILE}")
    (run / "metrics.jsonl").write_text(lines)
    page, text = report(tmp_path, run)
    assert text.count("<script") == 1
    assert HOSTILE in page.words
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert all(value.startswith("data:") for _, name, value in page.attributes if name == "src")


def test_several_runs_are_compared_with_the_supervised_one(tmp_path, make_run):
    runs = [
        make_run(f"{method}{seed}", method=method, seed=seed, quality=quality + 0.02 * seed)
        for method, quality in (("pico", 0.9), ("supervised", 0.5))
        for seed in range(2)
    ]
    page, _ = report(tmp_path, *runs)
    assert "Supervised against PiCo on streets" in page.words
    assert re.search(r"PiCo reaches [\d.]+ ± [\d.]+ % mean IoU, [\d.]+ points above", page.words)
    assert "against Supervised, points" in page.words
    assert "reference" in page.words
    assert "PiCo, seed 1" in page.words
    assert "Loss term: contrast" in page.words
    assert "PiCo: prediction" in page.words


def test_seeds_of_one_setting_are_pooled(tmp_path, make_run):
    page, _ = report(tmp_path, *(make_run(f"r{seed}", seed=seed) for seed in range(3)))
    assert "3 seeds; values are means" in page.words
    assert "±" in page.words
    assert "against PiCo" not in page.words


@pytest.mark.parametrize("status", ["running", "stopped", "failed", None])
def test_an_unfinished_run_says_so(tmp_path, make_run, status):
    run = make_run(status=status)
    page, _ = report(tmp_path, run)
    assert "Before you read on" in page.words
    assert "Its scores are not final" in page.words
    assert "step 400 of 400" in page.words


def test_a_killed_run_leaves_half_a_line(tmp_path, make_run):
    run = make_run()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 41')
    page, _ = report(tmp_path, run)
    assert "Before you read on" not in page.words


def test_a_bare_record_is_enough(tmp_path):
    run = tmp_path / "bare"
    run.mkdir()
    (run / "run.json").write_text("{}")
    page, _ = report(tmp_path, run)
    assert "unknown method" in page.words
    assert "config.yaml is missing" in page.words
    assert "nothing was validated" in page.words


def test_every_key_of_the_record_may_be_missing(tmp_path, make_run):
    run = make_run(count=2, pictures=0, steps=20)
    whole = json.loads((run / "run.json").read_text())
    for key in whole:
        (run / "run.json").write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        report(tmp_path, run)
    for key in whole["dataset"]:
        rest = {k: v for k, v in whole["dataset"].items() if k != key}
        (run / "run.json").write_text(json.dumps({**whole, "dataset": rest}))
        report(tmp_path, run)


@pytest.mark.parametrize("wrong", [None, 7, "text", [], [1], {"a": 1}, True])
def test_keys_of_the_wrong_kind_do_no_harm(tmp_path, make_run, wrong):
    run = make_run(count=2, pictures=0, steps=20)
    whole = json.loads((run / "run.json").read_text())
    for key in whole:
        (run / "run.json").write_text(json.dumps({**whole, key: wrong}))
        report(tmp_path, run)
    for key in whole["dataset"]:
        dataset = {**whole["dataset"], key: wrong}
        (run / "run.json").write_text(json.dumps({**whole, "dataset": dataset}))
        report(tmp_path, run)


@pytest.mark.parametrize("file", ["run.json", "config.yaml", "evaluation/val/scores.json"])
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00", "null"])
def test_a_damaged_file_is_named(tmp_path, make_run, file, content):
    run = make_run(count=3, pictures=1)
    (run / file).write_text(content)
    page, _ = report(tmp_path, run)
    assert f"{file.split('/')[-1]}" in page.words
    assert "left out" in page.words


def test_damaged_log_lines_are_counted(tmp_path, make_run):
    run = make_run()
    path = run / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text() + '{"step": "x"}\n[]\n')
    page, _ = report(tmp_path, run)
    assert "1 damaged lines of metrics.jsonl" in page.words


def test_damaged_pictures_are_named(tmp_path, make_run):
    run = make_run()
    (run / "evaluation/val/images/000_truth.png").write_bytes(b"no picture")
    page, _ = report(tmp_path, run)
    assert "pictures of street/0000 in run cannot be read" in page.words


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no run\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(DataError, match="no run was given"):
        write_report([], tmp_path / "report.html")


def test_runs_that_cannot_be_compared_are_flagged(tmp_path, make_run):
    one, other = make_run("one"), make_run("other", method="supervised")
    record = json.loads((other / "run.json").read_text())
    record["dataset"]["name"] = "fields"
    record["dataset"]["splits"]["val"]["sha256"] = "dd" * 32
    (other / "run.json").write_text(json.dumps(record))
    page, _ = report(tmp_path, one, other)
    assert "different data sets" in page.words
    assert "validation splits differ" in page.words


def test_many_classes_stay_small(tmp_path, make_run):
    run = make_run()
    names = [f"class {i}" for i in range(171)]
    counts = torch.eye(171, dtype=torch.int64) * 50 + 1
    scores = run / "evaluation" / "val" / "scores.json"
    values = {"split": "val", "scores": SegScores(counts).to_dict(names), "images": []}
    scores.write_text(json.dumps(values))
    dataset = json.loads((run / "run.json").read_text())["dataset"]
    edit_record(run, dataset={**dataset, "classes": names, "palette": None, "statistics": {}})
    page, text = report(tmp_path, run)
    assert len(text) < 500_000
    assert "class 170" in page.words


def test_the_size_stays_moderate(tmp_path, make_run):
    run = make_run(count=12, size=(240, 320), pictures=6)
    _, text = report(tmp_path, run)
    assert len(text) < 2_000_000


def test_an_old_report_is_replaced(tmp_path, make_run):
    out = tmp_path / "report.html"
    out.write_text("old")
    assert write_report([make_run()], out) == out
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_features_are_shown_and_names_escaped(make_run, tmp_path):
    names = [HOSTILE, "b", "c", "d", "e", "f", "g", "h"]
    run = make_run(features=True, instances=True, names=names, pictures=0)
    lines = [{"kind": "train", "step": s, "stat/anchors_per_class": [s] * 8} for s in range(4)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page, text = report(tmp_path, run)
    assert HOSTILE not in text
    for words in (
        "How far features keep classes apart",
        "classifier input",
        "t-SNE of the embedding",
        "Which classes lie close",
        "Weighted by instance",
        "IoU at boundaries",
        "Anchors of each class",
    ):
        assert words in page.words
    assert 'href="#features"' in text
    assert 'href="#diagnostics"' in text


def test_several_runs_are_compared_by_their_features(make_run, tmp_path):
    runs = [
        make_run("a", method="supervised", features=True, pictures=0),
        make_run("b", seed=1, features=True, pictures=0, names=[f"n{i}" for i in range(8)]),
        make_run("c", seed=2, pictures=0),
    ]
    page, _ = report(tmp_path, *runs)
    assert "Supervised: t-SNE of the classifier input" in page.words
    assert "Green: better than Supervised" in page.words
    assert "mean IoU at boundaries" in page.words

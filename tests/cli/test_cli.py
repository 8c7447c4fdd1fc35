"""The command line as a user meets it, in one process where that is enough."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pixelcontrast.cli import main
from pixelcontrast.recipes import recipe_names


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs one command and returns its exit status, output and error output."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["pixelcontrast", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A finished PiCo run on the drawn scenes."""
    from tests.conftest import TINY

    from pixelcontrast.engine.train import train

    tree = {**TINY, "name": "tiny", "method": {"name": "pico", "embedding": {"dim": 8}}}
    out = tmp_path_factory.mktemp("runs") / "tiny"
    return train(tree, out=out, data={"root": scenes}).root


def test_help_list_and_show_answer_without_torch():
    for words in (["--help"], ["list", "recipes"], ["list", "methods"], ["show", "pico_camvid"]):
        code = (
            "import sys; from pixelcontrast.cli import main\n"
            f"sys.argv = ['pixelcontrast', *{words!r}]\n"
            "try: main()\n"
            "except SystemExit as end: assert not end.code, end.code\n"
            "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_wrong_method_folder_or_description_is_refused_without_torch(tmp_path):
    (tmp_path / "jpgs").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset.yaml").write_text("klasses: [a, b]")
    code = (
        "import sys; from pixelcontrast.cli import main\n"
        "for words in ('--method unimtach', 'pico --data jpgs', 'pico --data .'):\n"
        "    sys.argv = ['pixelcontrast', 'train', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for word in ("unknown method", "none of the known layouts", "unknown key 'klasses'"):
        assert word in done.stderr


@pytest.mark.parametrize("topic", ["methods", "models", "recipes", "datasets"])
def test_lists(cli, topic):
    status, out, _ = cli("list", topic)
    assert status == 0
    assert len(out.splitlines()) >= 2


def test_recipes_are_listed_by_method_data_and_network(cli):
    lines = cli("list", "recipes", "--method", "pico", "--data", "cityscapes")[1].splitlines()
    networks = ("", "_deeplabv3", "_ocrnet", "_segformer")
    assert [line.split()[0] for line in lines] == [f"pico_cityscapes{n}" for n in networks]
    dpt = cli("list", "recipes", "--network", "dpt")[1]
    assert "unimatch_v2_voc" in dpt
    assert "pico" not in dpt
    status, _, error = cli("list", "--method", "nobodys")
    assert status
    assert "no recipe" in error
    assert "contextrast" in error
    assert cli("list", "models", "--data", "voc")[0]


def test_doctor_measures_a_network(cli):
    status, out, _ = cli(
        "doctor", "model.encoder=test_resnet", "model.decoder=fpn", "model.decoder_channels=8",
        "view.crop=[64,96]", "train.device=cpu", "train.batch=1",
    )  # fmt: skip
    assert status == 0
    assert "test_resnet + fpn" in out
    assert "1 of 64 x 96" in out
    assert "peak memory" in out


def test_show_prints_the_recipe_and_applies_settings(cli):
    assert "# PiCo" in cli("show", "pico_camvid")[1]
    changed = yaml.safe_load(cli("show", "pico_camvid", "optim.lr=0.5")[1])
    assert changed["optim"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "pico_camvd"], "did you mean 'pico_camvid'"),
        (["train"], "give one recipe"),
        (["train", "pico", "supervised"], "give one recipe"),
        (["train", "pico_scenes", "method.temprature=1"], "did you mean 'temperature'"),
        (["train", "pico_scenes", "model.encoder=resnet81"], "did you mean"),
        (["train", "pico_scenes", "train.steps=x"], "train.steps"),
        (["train", "pico_scenes", "train=5"], "train is a section"),
        (["train", "pico_scenes", "method=fixmatch"], "set method.name=fixmatch"),
        (["train", "pico"], "no data set is given"),
        (["train", "pico", "--data", "/nowhere/at/all"], "does not exist"),
        (["train", "pico", "--resume", "--out", "/nowhere/at/all"], "start the run without"),
        (["train", "--method", "pica", "--data", "x"], "did you mean 'pico'"),
        (["train", "--method", "unimtach", "--data", "x"], "unknown method 'unimtach'"),
        (["eval", "/nowhere"], "no trained model"),
        (["predict", "/nowhere", "x.jpg"], "no trained model"),
        (["report", "/nowhere"], "/nowhere"),
        (["export", "/nowhere"], "no trained model"),
        (["list", "recipe"], "did you mean 'recipes'"),
        (["show", "pico_camvd"], "did you mean 'pico_camvid'"),
        (["data", "check", "/nowhere"], "does not exist"),
    ],
)
def test_mistakes_end_with_one_message(cli, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[:2] == ["train", "pico_scenes"]:
        words = [*words, "data.scenes.train=8", "data.scenes.val=2", "data.labeled=4"]
    status, _, err = cli(*words)
    assert status == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_show_refuses_what_train_would(cli):
    status, _, err = cli("show", "pico_camvid", "train.step=3")
    assert status == 2
    assert "did you mean 'steps'" in err


def test_the_held_out_images_stay_when_other_labels_are_drawn(cli, tmp_path):
    from pixelcontrast.data import open_dataset

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), np.zeros((32, 32, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"masks/{i}.png"), np.eye(32, dtype=np.uint8))
    before = open_dataset(tmp_path).splits["val"]
    for seed in (0, 1):
        assert cli("data", "split", tmp_path, "--count", 4, "--seed", seed)[0] == 0
        splits = open_dataset(tmp_path).splits
        assert splits["val"] == before
        assert not set(before) & {*splits["labeled"], *splits["unlabeled"]}


def test_a_folder_without_masks_is_explained(cli, tmp_path, tiny):
    (tmp_path / "images").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), np.zeros((32, 32, 3), np.uint8))
    status, _, err = cli("train", "supervised", "--data", tmp_path, "--out", tmp_path / "run")
    assert status == 2
    assert "needs labelled images and there are none" in err


def test_an_output_place_that_cannot_be_written_is_named(cli, trained, tmp_path):
    (tmp_path / "file").touch()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for words in (
        ["data", "make", tmp_path / "file" / "x", "--train", 1, "--val", 0, "--test", 0],
        ["predict", trained, tmp_path / "a.png", "--out", tmp_path / "file" / "x"],
        ["report", trained, "--out", tmp_path / "file" / "x.html"],
    ):
        status, _, err = cli(*words)
        assert status == 2
        assert str(tmp_path / "file") in err


def test_version(cli):
    assert cli("--version")[1].startswith("pixelcontrast 0.")


def test_a_mistyped_verb_is_suggested(cli):
    status, _, err = cli("trian")
    assert status == 2
    assert "train" in err


def test_a_run_leaves_everything_behind(trained):
    for name in (
        "config.yaml",
        "run.json",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "evaluation/val/scores.json",
    ):
        assert (trained / name).stat().st_size > 0, name
    record = json.loads((trained / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["dataset"]["splits"]["labeled"]["count"] == 8
    assert len(record["dataset"]["splits"]["labeled"]["sha256"]) == 64
    assert record["model"]["parameters_inference"] < record["model"]["parameters"]
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").open()]
    assert kinds.count("train") == 6
    assert kinds.count("val") == 2


def test_eval_scores_a_split(cli, trained):
    status, out, _ = cli(
        "eval", trained, "--split", "test", "--scales", "0.5,1", "--flip", "--json"
    )
    assert status == 0
    printed = json.loads(out)
    stored = json.loads((trained / "evaluation" / "test" / "scores.json").read_text())
    for part in ("boundary", "features", "instances", "clusters"):
        assert printed.pop(part) == stored[part]
    assert stored["scores"] == printed
    assert stored["protocol"]["scales"] == [0.5, 1.0]
    shown = cli("eval", trained, "--slide", "--boundary", "0", "--no-features")[1]
    assert "mean" in shown
    assert "boundary" not in shown
    assert "U_1" not in shown


def test_a_boundary_nearer_than_a_pixel_is_refused(cli, trained):
    status, _, err = cli("eval", trained, "--boundary", "0.5")
    assert status == 2
    assert "--boundary" in err


def test_eval_and_predict_follow_the_runs_own_protocol(cli, tiny, tmp_path):
    import pixelcontrast as pc

    tiny["method"] = {"name": "supervised"}
    tiny["train"]["steps"] = 1
    tiny["eval"] = {"inference": {"scales": [0.5], "flip": True}}
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(tiny))
    assert cli("train", recipe, "--out", out)[0] == 0
    assert cli("eval", out)[0] == 0
    stored = json.loads((out / "evaluation" / "val" / "scores.json").read_text())
    assert (stored["protocol"]["scales"], stored["protocol"]["flip"]) == ([0.5], True)
    assert pc.load(out).inference.scales == (0.5,)
    assert pc.load(out).inference.flip


def test_predict_takes_a_folder_of_different_sizes(cli, trained, tmp_path):
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    sizes = {"a.jpg": (50, 70), "deep/b.png": (1, 1), "deep/c.jpg": (33, 129)}
    for name, (height, width) in sizes.items():
        cv2.imwrite(str(source / name), np.full((height, width, 3), 90, np.uint8))
    Image.fromarray(np.full((20, 30, 4), 120, np.uint8), "RGBA").save(source / "alpha.png")
    status, out, _ = cli("predict", trained, source, "--out", tmp_path / "out")
    assert status == 0
    assert "4 images" in out
    for name, size in {**sizes, "alpha.png": (20, 30)}.items():
        stem = name.rsplit(".", 1)[0]
        ids = np.array(Image.open(tmp_path / "out" / "ids" / f"{stem}.png"))
        assert ids.shape == size
        assert ids.max() < 8
        assert np.array(Image.open(tmp_path / "out" / "overlay" / f"{stem}.png")).shape == (
            *size,
            3,
        )


def test_predict_goes_on_after_a_broken_image(cli, trained, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "b.jpg"), np.zeros((20, 20, 3), np.uint8))
    status, out, err = cli(
        "predict", trained, tmp_path, "--out", tmp_path / "out", "--kinds", "ids"
    )
    assert status == 2
    assert "1 images" in out
    assert "a.jpg" in err
    assert (tmp_path / "out" / "ids" / "b.png").exists()


def test_export_writes_loadable_files(cli, trained, tmp_path):
    status, _, _ = cli("export", trained, "--out", tmp_path / "model.safetensors")
    assert status == 0
    status, _, err = cli(
        "export", trained, "--format", "pt2", "--size", "48x64", "--out", tmp_path / "model.pt2"
    )
    assert status == 0, err
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(torch.zeros(1, 3, 48, 64)).shape == (1, 8, 48, 64)
    import pixelcontrast as pc

    prediction = pc.load(tmp_path / "model.safetensors")(np.zeros((10, 12, 3), np.uint8))
    assert prediction.mask.shape == (10, 12)
    assert prediction.names[0] == "sky"
    assert sum(prediction.shares().values()) == pytest.approx(1.0)


def test_report_compares_runs(cli, trained, tmp_path):
    status, _, _ = cli("report", trained, trained, "--out", tmp_path / "both.html")
    assert status == 0
    assert "<html" in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize("damage", ["empty", "cut", "missing"])
def test_a_damaged_model_is_named(cli, trained, tmp_path, damage):
    broken = tmp_path / "model.safetensors"
    content = (trained / "model.safetensors").read_bytes()
    if damage != "missing":
        broken.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    status, _, err = cli("predict", broken, tmp_path / "a.png")
    assert status == 2
    assert str(broken) in "".join(err.split("\n"))


def test_a_damaged_checkpoint_cannot_be_resumed(cli, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    config = tmp_path / "run" / "config.yaml"
    status, _, err = cli("train", config, "--out", tmp_path / "run", "--resume")
    assert status == 2
    assert "last.ckpt" in "".join(err.split())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_a_refused_device_leaves_no_folder_behind(cli, tiny, tmp_path):
    tiny["method"] = {"name": "supervised"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny))
    status, _, err = cli("train", recipe, "train.devices=3", "--out", tmp_path / "run")
    assert status == 2
    assert "multiple of 3" in err
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused(cli, trained, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"data/images/{i}.png"), np.zeros((32, 32, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"data/masks/{i}.png"), np.eye(32, dtype=np.uint8))
    status, _, err = cli("eval", trained, "--data", tmp_path / "data", "--split", "train")
    assert status == 2
    assert "8 classes" in err


def test_an_existing_run_is_not_overwritten(cli, trained):
    status, _, err = cli("train", trained / "config.yaml", "--out", trained)
    assert status == 2
    assert "--resume" in err


@pytest.mark.parametrize(
    ("mistake", "hint"),
    [("train.stepz=5", "did you mean 'steps'"), ("method.name=picco", "did you mean 'pico'")],
)
def test_a_mistake_in_the_settings_is_told_before_an_existing_run(
    cli, trained, scenes, mistake, hint
):
    status, _, err = cli("train", "supervised", "--data", scenes, "--out", trained, mistake)
    assert status == 2
    assert hint in err
    assert "already holds a run" not in err


def test_a_resumed_run_cannot_become_another_one(cli, trained):
    config = trained / "config.yaml"
    status, _, err = cli("train", config, "optim.lr=7", "--out", trained, "--resume")
    assert status == 2
    assert "optim.lr" in err


def test_training_refuses_bad_data_before_the_first_step(cli, scenes, tmp_path, tiny):
    bad = tmp_path / "bad"
    shutil.copytree(scenes, bad)
    masks = sorted((bad / "masks").rglob("*.png"))
    masks[0].write_bytes(masks[0].read_bytes()[:40])
    cv2.imwrite(str(masks[1]), np.full((48, 64), 77, np.uint8))
    tiny["data"]["root"] = str(bad)
    tiny["method"] = {"name": "supervised"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny))
    status, _, err = cli("train", recipe, "--out", tmp_path / "run")
    assert status == 2
    assert masks[0].name in err
    assert "77" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_with_names(cli, tiny, tmp_path, monkeypatch, value):
    from pixelcontrast.methods.supervised import Supervised

    losses = Supervised.losses

    def broken(method, batch):
        report = losses(method, batch)
        if method.global_step == 4:
            report.terms["ce"] = report.terms["ce"] * float(value)
        return report

    monkeypatch.setattr(Supervised, "losses", broken)
    tiny["method"] = {"name": "supervised"}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny))
    status, _, err = cli("train", recipe, "--out", tmp_path / "run")
    assert status == 3
    assert "step 4" in err
    assert "ce = " in err
    assert "train_" in err
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_full_disk_keeps_the_last_good_checkpoint(cli, tiny, tmp_path, monkeypatch):
    from lightning.pytorch import Trainer

    save = Trainer.save_checkpoint

    def full(trainer, path, *args, **kwargs):
        save(trainer, path, *args, **kwargs)
        if trainer.global_step == 6:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    tiny["method"] = {"name": "supervised"}
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(tiny))
    status, _, err = cli("train", recipe, "--out", out)
    assert status == 2
    assert "No space left" in err
    assert "last.ckpt" in err
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends_cleanly(tiny, tmp_path, number):
    tiny["method"] = {"name": "supervised"}
    tiny["train"] |= {"steps": 4000, "validate_every": 4000, "checkpoint_every": 4000}
    tiny["data"]["workers"] = 1
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "pixelcontrast", "train", str(recipe), "--out", str(out)]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: the workers get it, too
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "--resume" in err
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    checkpoint = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] >= 1


@pytest.mark.slow
def test_two_processes_train_and_score_every_image_once(tiny, tmp_path):
    tiny["method"] = {"name": "pico", "embedding": {"dim": 8}}
    tiny["train"] |= {"steps": 2, "devices": 2, "validate_every": 2}
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "pixelcontrast", "train", str(recipe), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["status"] == "finished"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    scored = json.loads((out / "evaluation" / "val" / "scores.json").read_text())
    validated = next(line for line in lines if line["kind"] == "val")
    # Both processes together saw the same images as the final scoring in one.
    assert validated["miou_ema"] == pytest.approx(scored["scores"]["miou"], abs=1e-6)


def test_recipes_are_listed_by_name(cli):
    out = cli("list", "recipes")[1]
    assert all(name in out for name in recipe_names())


def test_similar_points_at_a_pixel_and_names_images(cli, trained, scenes, tmp_path):
    images = sorted((scenes / "images").rglob("*.jpg"))
    sheet = tmp_path / "found.png"
    words = ("similar", trained, images[0], scenes / "images", "--count", 3, "--out", sheet)
    status, out, _ = cli(*words, "--at", "40,10", "--json")
    assert status == 0
    found = json.loads(out)
    assert len(found) == 3
    assert str(images[0]) not in {one["image"] for one in found}
    assert found[0]["similarity"] >= found[1]["similarity"] >= found[2]["similarity"]
    assert sheet.is_file()
    assert cli(*words, "--at", "40,10")[1].count(".jpg") == 3
    status, _, error = cli(*words, "--at", "40")
    assert status == 2
    assert "ROW,COLUMN" in error
    assert "outside of the image" in cli(*words, "--at", "48,0")[2]


def test_images_that_a_method_does_not_use_are_told(capsys, tiny, tmp_path):
    from pixelcontrast.engine.train import train

    tiny["method"] = {"name": "supervised"}
    tiny["data"]["labeled"] = 4
    tiny["train"]["steps"] = 1
    train(tiny, out=tmp_path / "run")
    shown = " ".join(capsys.readouterr().out.split())
    assert "unlabelled images are not used by" in shown

import json

import pytest
import yaml

from pixelcontrast.report.run import read_run
from pixelcontrast.report.words import (
    hardware_name,
    headline_sentence,
    method_options,
    method_title,
    run_title,
    settings,
    term_title,
)


def changed(folder, path, value):
    """The run with one value of its configuration replaced."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    place = config
    *keys, last = path.split(".")
    for key in keys:
        place = place[key]
    place[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return read_run(folder)


@pytest.fixture
def folder(make_run):
    return make_run(steps=20, pictures=0, count=2)


def test_settings_of_a_run(folder):
    said = dict(settings(read_run(folder)))
    assert said["Network"].startswith("DeepLabV3+ (resnet18), 12.3 M parameters (12.2 M of them")
    assert said["Network"].endswith("trained from random weights.")
    assert said["Data"].startswith("streets: 8 classes, 40 labelled, 160 unlabelled and 2 valid")
    assert "Labels were limited to 40." in said["Data"]
    assert said["Optimisation"].startswith("SGD at learning rate 0.01 (10 ")
    assert "poly schedule; 20 steps of 8 images; float32 arithmetic" in said["Optimisation"]
    assert said["Evaluation"] == (
        "Split “val” of 2 images: whole images, pixels of all images counted together. "
        "Scored are the trained weights of step 1,800, the best of the validations."
    )
    assert said["Machine"] == "Example CPU 9000, 2 cores; training took 8 min."
    assert headline_sentence(read_run(folder)) == (
        "DeepLabV3+ (resnet18) trained on streets with PiCo. 40 training images have labels, "
        "160 have none."
    )


def test_masks_that_were_not_used_are_not_spoken_of(make_run):
    run = read_run(make_run(steps=20, pictures=0, count=2, method="picie"))
    assert headline_sentence(run).endswith("It learnt from 200 images and from no mask.")


def test_options_are_flat(folder):
    options = dict(method_options(read_run(folder)))
    assert options["temperature"] == "0.1"
    assert options["segmentation.auxiliary_weight"] == "0.4"
    assert "name" not in options


@pytest.mark.parametrize(
    ("path", "value", "heading", "words"),
    [
        ("model.pretrained", True, "Network", "encoder pretrained"),
        ("model.weights_file", "x.pth", "Network", "read from a file"),
        ("data.labeled", "few", "Data", "the split “few”"),
        ("data.labeled_seed", 7, "Data", "drawn with seed 7"),
        ("view.colour", {"brightness": 0.5}, "Views", "colours changed"),
        ("train.accumulate", 4, "Optimisation", "summed over 4 batches"),
        ("train.ema", 0.99, "Optimisation", "averaged weights (decay 0.99)"),
        ("optim.weight_decay", 0.0005, "Optimisation", "weight decay 5e-4"),
    ],
)
def test_a_setting_is_said(folder, path, value, heading, words):
    assert words in dict(settings(changed(folder, path, value)))[heading]


@pytest.mark.parametrize("section", ["data", "view", "model", "method", "optim", "train", "eval"])
@pytest.mark.parametrize("wrong", [None, 3, "x", [1, 2], {"lr": "fast", "crop": ["a", "b"]}])
def test_sections_of_the_wrong_kind_are_left_unsaid(folder, section, wrong):
    assert settings(changed(folder, section, wrong))


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"mode": "slide", "crop": [513, 513]}, "sliding windows of 513"),
        ({"scales": [0.5, 1.0], "flip": True}, "at scales 0.5 and 1, plain and mirrored"),
        ({"scales": ["x"]}, "whole images, at scales"),
    ],
)
def test_the_protocol_is_said(folder, protocol, words):
    scores = folder / "evaluation" / "val" / "scores.json"
    scores.write_text(json.dumps({**json.loads(scores.read_text()), "protocol": protocol}))
    assert words in dict(settings(read_run(folder)))["Evaluation"]


def test_hardware(folder):
    record = json.loads((folder / "run.json").read_text())
    record |= {"device": "gpu", "hardware": {"cpu": "C", "cores": 8, "gpu": "G100", "gpus": 4}}
    (folder / "run.json").write_text(json.dumps(record))
    assert hardware_name(read_run(folder)).startswith("4 ")
    assert hardware_name(read_run(folder)).endswith(" G100")


def test_an_unknown_method_keeps_its_name():
    assert method_title("my_method") == "my_method"


def test_a_contrast_term_on_another_method_is_named(folder):
    run = changed(folder, "method.contrast", {"name": "prcl"})
    assert run_title(run) == "PiCo with PRCL contrast"
    assert "trained on streets with PiCo with PRCL contrast." in headline_sentence(run)
    assert "Added to it is the contrast of PRCL" in dict(settings(run))["Method"]


def test_student_and_teacher_are_both_reported(folder):
    assert "Networks" not in dict(settings(read_run(folder)))
    lines = [{"kind": "val", "step": s, "miou": 0.3 + s / 100} for s in (10, 20)]
    lines[0]["miou_teacher"] = 0.45
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert dict(settings(read_run(folder)))["Networks"] == (
        "Best validation mean IoU: trained weights 50.0 % and teacher 45.0 %. "
        "The better one is kept and scored."
    )


def test_terms_of_masks_are_told_in_words_and_keep_their_names():
    assert term_title("mask_dice") == "masks, by their overlap (mask_dice)"
    assert term_title("ce") == "ce"

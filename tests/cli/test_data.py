import sys

import pytest
from tests.data.layouts import draw_ade20k

from pixelcontrast.cli import main


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


def test_prepare_says_what_to_get_and_what_is_missing(cli, tmp_path):
    status, out, err = cli("data", "prepare", "ade20k", "--out", tmp_path)
    assert status == 2
    assert "ADEChallengeData2016.zip" in out
    assert "non-commercial" in out
    assert "ade20k is not there yet" in err
    draw_ade20k(tmp_path)
    status, out, _ = cli("data", "prepare", "ade20k", "--out", tmp_path)
    assert status == 0
    assert "found: train 2, val 1" in out
    assert "train has 2 of 20,210 images" in out


def test_prepare_with_a_source_that_lacks_the_files(cli, tmp_path):
    status, _, err = cli(
        "data", "prepare", "voc", "--out", tmp_path / "out", "--source", tmp_path.as_uri()
    )
    assert status == 2
    assert "cannot download" in err
    status, _, err = cli("data", "prepare", "voc", "--out", tmp_path / "out", "--no-download")
    assert "voc is not there yet" in err


def test_prepare_of_an_unknown_data_set(cli, tmp_path):
    status, _, err = cli("data", "prepare", "cityscape", "--out", tmp_path)
    assert status == 2
    assert "did you mean 'cityscapes'" in err


def test_lists(cli):
    _, out, _ = cli("data", "lists", "ade20k")
    lines = out.splitlines()
    assert len(lines) == 6
    assert lines[3].split()[:2] == ["unimatch/ade20k/1_8", "2526"]
    assert len(cli("data", "lists")[1].splitlines()) > 30

import shlex

import pytest

from pixelcontrast.engine.folder import RunFolder
from pixelcontrast.engine.prepare import assemble, command_for


@pytest.mark.parametrize(
    ("overrides", "sections"),
    [
        ([], {}),
        (["optim.lr=0.5", "view.crop=[96, 128]", "data.root=a folder"], {}),
        (["seed=3"], {"data": {"root": "it's", "split": None}, "train": {"compile": True}}),
    ],
)
def test_the_stored_command_gives_the_same_configuration(overrides, sections, tmp_path):
    folder = RunFolder(tmp_path / "a run")
    words = shlex.split(command_for("pico_scenes", overrides, sections, folder))
    assert words[:3] == ["pixelcontrast", "train", "pico_scenes"]
    assert words[-2:] == ["--out", str(folder.root)]
    again = assemble("pico_scenes", words[3:-2], {})
    assert again == assemble("pico_scenes", overrides, sections)


def test_a_configuration_in_memory_is_trained_anew_from_the_run(tmp_path):
    command = command_for({"method": {}}, ["seed=3"], {}, RunFolder(tmp_path))
    assert command == f"pixelcontrast train {tmp_path}/config.yaml --out {tmp_path}"

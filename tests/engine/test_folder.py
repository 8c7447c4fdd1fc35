import pytest

from pixelcontrast.core.errors import CheckpointError, ConfigError, PixelContrastError
from pixelcontrast.engine.folder import RunFolder, model_file


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(force=False)
    folder.write_config({"a": 1})
    (folder.root / "precious.txt").touch()
    with pytest.raises(ConfigError, match="--resume"):
        folder.create(force=False)
    assert (folder.root / "precious.txt").exists()
    folder.create(force=True)
    assert not (folder.root / "precious.txt").exists()


def test_force_never_deletes_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").touch()
    RunFolder(tmp_path).create(force=True)
    assert (tmp_path / "thesis.tex").exists()


def test_records_merge_and_survive_damage(tmp_path):
    folder = RunFolder(tmp_path)
    folder.update_record(a=1)
    folder.update_record(b=2)
    assert folder.read_record() == {"a": 1, "b": 2}
    folder.record.write_text("{")
    assert folder.read_record() == {}


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PixelContrastError, match="--out"):
        RunFolder(tmp_path / "file" / "run").create(force=False)


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        RunFolder(tmp_path).read_config()


def test_a_run_stopped_before_its_first_validation_is_told_to_go_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="validated at least once"):
        model_file(folder.root)
    folder.last.parent.mkdir(parents=True)
    folder.last.write_bytes(b"checkpoint")
    with pytest.raises(CheckpointError, match="--resume"):
        model_file(folder.root)

import errno

import pytest

from pixelcontrast.core.errors import DataError, PixelContrastError
from pixelcontrast.core.files import atomic_path, data_folder, write_json, write_text


def test_the_old_file_stays_when_writing_fails(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full_disk():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(PixelContrastError, match="No space left"):
        full_disk()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_other_errors_pass_and_leave_nothing(tmp_path):
    def fails():
        with atomic_path(tmp_path / "a") as temporary:
            temporary.touch()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fails()
    assert not list(tmp_path.iterdir())


def test_folders_are_made(tmp_path):
    write_json(tmp_path / "deep" / "er" / "a.json", {"ä": 1})
    assert "ä" in (tmp_path / "deep" / "er" / "a.json").read_text(encoding="utf-8")


def test_a_missing_data_folder_is_named_with_what_lies_beside_it(tmp_path):
    (tmp_path / "street").mkdir()
    assert data_folder(tmp_path / "street") == tmp_path / "street"
    with pytest.raises(DataError, match="did you mean 'street'"):
        data_folder(tmp_path / "streets")
    with pytest.raises(DataError, match="does not exist either"):
        data_folder(tmp_path / "none" / "streets")

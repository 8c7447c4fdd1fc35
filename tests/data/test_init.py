import subprocess
import sys

import pytest

import pixelcontrast.data as data


def test_every_name_is_there():
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="nope"):
        _ = data.nope


def test_listing_data_sets_does_not_wait_for_torch():
    code = (
        "import sys; from pixelcontrast.data.table import DATASET_SUMMARIES;"
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_reading_and_checking_do_not_need_torch():
    code = (
        "import sys; from pixelcontrast.data import check_dataset, open_dataset, read_image;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

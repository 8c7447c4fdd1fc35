import io

import numpy as np
import pytest
from scipy.io import savemat

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.matlab import matlab_ids
from pixelcontrast.data.reading import read_stored_mask

IDS = np.array([[0, 459], [2, 300]], np.uint16)


def packed(content):
    buffer = io.BytesIO()
    savemat(buffer, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [{"LabelMap": IDS}, {"S": IDS, "names": [1]}, {"GTcls": {"Segmentation": IDS, "x": 1}}],
)
def test_the_three_forms(content, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(packed(content))
    assert (matlab_ids(path.read_bytes(), path) == IDS).all()
    stored = read_stored_mask(path)
    assert (stored.values == IDS).all()
    assert stored.size == (2, 2)


@pytest.mark.parametrize("content", [{"other": IDS}, {"S": IDS * 0.5}, {"S": IDS[None, :, :]}])
def test_files_without_a_label_map(content):
    with pytest.raises(DataError, match="no label map"):
        matlab_ids(packed(content), "a.mat")


@pytest.mark.parametrize("data", [b"", b"nothing", packed({"S": IDS})[:150]])
def test_damaged_files(data):
    with pytest.raises(DataError, match=r"a\.mat"):
        matlab_ids(data, "a.mat")

import pytest

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.models import DECODERS
from pixelcontrast.models.encoder import _plan
from pixelcontrast.models.table import DECODER_SUMMARIES, ENCODER_FAMILIES


def test_every_decoder_is_described():
    assert DECODER_SUMMARIES.keys() == DECODERS.keys()


@pytest.mark.parametrize("name", ENCODER_FAMILIES)
def test_every_family_is_usable_as_described(name):
    text = ENCODER_FAMILIES[name]
    strides = _plan(name, 32).strides
    if "all of stride" in text:
        assert set(strides) == {int(text.split()[-1])}
        return
    assert strides == (4, 8, 16, 32)
    if text.endswith("output stride 8-32"):
        assert _plan(name, 8).strides == (4, 8, 8, 8)
    else:
        with pytest.raises(ConfigError, match="cannot be dilated"):
            _plan(name, 8)

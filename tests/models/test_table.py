from pixelcontrast.models import DECODERS
from pixelcontrast.models.table import DECODER_SUMMARIES


def test_every_decoder_is_described():
    assert DECODER_SUMMARIES.keys() == DECODERS.keys()

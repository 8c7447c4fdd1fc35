import subprocess
import sys

import pytest

from pixelcontrast import models


def test_every_name_is_there():
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="nope"):
        _ = models.nope


def test_configuration_and_lists_do_not_wait_for_torch():
    code = (
        "import sys; from pixelcontrast.models import EmbeddingConfig, ModelConfig;"
        "from pixelcontrast.models.backbones import BACKBONES; ModelConfig();"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

import pytest
import torch
from tests.models.same_weights import pyramid, randomise

from pixelcontrast.models import ModelConfig, build_segmentor
from pixelcontrast.models.decoders import SegFormerHead

WIDTHS = (8, 16, 24, 32)


def reference(classes=5):
    transformers = pytest.importorskip("transformers", minversion="5.23")
    from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

    config = transformers.SegformerConfig(
        hidden_sizes=list(WIDTHS), decoder_hidden_size=12, num_labels=classes
    )
    return randomise(SegformerDecodeHead(config))


def test_equals_transformers_with_the_same_weights():
    theirs = reference()
    ours = SegFormerHead(WIDTHS, (4, 8, 16, 32), width=12).eval()
    for mine, linear in zip(ours.linears, theirs.linear_projections, strict=True):
        mine.weight.data = linear.proj.weight.data[:, :, None, None]
        mine.bias.data = linear.proj.bias.data
    ours.fuse[0].load_state_dict(theirs.linear_fuse.state_dict())
    ours.fuse[1].load_state_dict(theirs.batch_norm.state_dict())
    stages = pyramid(WIDTHS)
    with torch.no_grad():
        logits = theirs.classifier(ours(stages).features)
        torch.testing.assert_close(logits, theirs(tuple(stages)), rtol=1e-4, atol=1e-4)


def test_published_size():
    # 2105.15203, table 1: SegFormer-B0 has 3.8 M parameters, 0.4 M of them the decoder's (for the
    # 150 classes of ADE20K; 3.75 M in transformers).
    with torch.device("meta"):
        config = ModelConfig(encoder="mit_b0", decoder="segformer", pretrained=False)
        model = build_segmentor(config, 150)
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    assert counts["decoder"] + counts["classifier"] == 394_752 + 150 * 257
    assert sum(counts.values()) / 1e6 == pytest.approx(3.753, rel=0.01)

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.models.blocks import conv_bn_relu, resize, size_of


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(1, 6))
def test_convolution_keeps_the_size(height, width, kernel, dilation):
    block = conv_bn_relu(2, 3, kernel, dilation=dilation).eval()
    out = block(torch.randn(1, 2, height, width))
    assert tuple(out.shape) == (1, 3, height, width)
    assert (out >= 0).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_resize_keeps_constants(height, width, align):
    out = resize(torch.full((1, 2, 3, 4), 7.0), (height, width), align_corners=align)
    assert size_of(out) == (height, width)
    torch.testing.assert_close(out, torch.full_like(out, 7.0))

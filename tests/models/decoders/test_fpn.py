import torch

from pixelcontrast.models.decoders import FPN


def test_top_down_sum_equals_the_slow_form():
    decoder = FPN([3, 4, 5], [4, 8, 16], width=6).eval()
    stages = torch.randn(1, 3, 9, 14), torch.randn(1, 4, 5, 7), torch.randn(1, 5, 3, 4)

    def up(x, like):
        return torch.nn.functional.interpolate(x, like.shape[-2:], mode="bilinear")

    p3 = decoder.laterals[2](stages[2])
    p2 = decoder.laterals[1](stages[1]) + up(p3, stages[1])
    p1 = decoder.laterals[0](stages[0]) + up(p2, stages[0])
    torch.testing.assert_close(decoder(stages).features, decoder.smooth(p1))


def test_stages_of_one_size_are_added():
    decoder = FPN([3, 3], [16, 16], width=2).eval()
    a, b = torch.randn(1, 3, 4, 5), torch.randn(1, 3, 4, 5)
    total = decoder.laterals[0](a) + decoder.laterals[1](b)
    torch.testing.assert_close(decoder([a, b]).features, decoder.smooth(total))

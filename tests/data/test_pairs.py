import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import seed_for
from pixelcontrast.data import ColourConfig, PairConfig, Pairing, crop_features
from pixelcontrast.data.colour import draw_colour
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.loaders import build_pair_loader
from pixelcontrast.data.pairs import (
    PLAIN,
    Box,
    cell_size,
    draw_box,
    make_pair,
    middle,
    place_box,
    resize,
)
from pixelcontrast.data.sampler import EpochSampler, epoch_order, pass_batches

COLOUR = ColourConfig(
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.1,
    jitter_probability=0.8,
    jitter_each=True,
    jitter_ordered=True,
    greyscale_probability=0.2,
    blur_probability=0.5,
)


def photograph(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(noise, np.ones((8, 8, 1), np.uint8))


@pytest.mark.parametrize("share", [0.7, 0.7123])
def test_the_box_is_drawn_in_cells_and_enlarged_exactly(share):
    box = place_box((80, 80), share, (0.25, 0.75), 0.9)
    assert box == Box(6, 18, 56, 56, flip=False)
    pairing = Pairing(PairConfig(enlarge=2.0), grid=(80, 80))
    assert cell_size(pairing, (320, 320)) == (8, 8)
    assert [8 * n for n in (box.top, box.left, box.height)] == [48, 144, 448]


def test_a_draw_below_the_probability_mirrors():
    assert place_box((8, 8), 1.0, (0, 0), 0.4).flip
    assert not place_box((8, 8), 1.0, (0, 0), 0.5).flip
    row = torch.arange(4.0).view(1, 1, 1, 4)
    mirrored = crop_features(row, torch.tensor([[0, 0, 1, 4, 1]]))
    assert mirrored.flatten().tolist() == [3, 2, 1, 0]


def test_cropping_features_equals_cutting_and_resizing_each_map():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(4, 3, 7, 9, generator=generator, dtype=torch.float64)
    boxes = torch.tensor([[0, 0, 7, 9, 0], [2, 3, 4, 5, 1], [6, 8, 1, 1, 0], [1, 0, 3, 9, 1]])
    maps.requires_grad_()
    found = crop_features(maps, boxes)
    slow = []
    for one, (top, left, height, width, flip) in zip(maps, boxes.tolist(), strict=True):
        part = one[None, :, top : top + height, left : left + width]
        part = F.interpolate(part, (7, 9), mode="bilinear", align_corners=False)
        slow.append(part.flip(-1) if flip else part)
    torch.testing.assert_close(found, torch.cat(slow), rtol=1e-12, atol=1e-12)
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    mine = torch.autograd.grad((found * weights).sum(), maps)[0]
    theirs = torch.autograd.grad((torch.cat(slow) * weights).sum(), maps)[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_nothing_outside_of_the_box_is_seen_even_in_half_precision():
    maps = torch.full((1, 1, 8, 8), 100.0, dtype=torch.bfloat16)
    maps[:, :, 2:5, 1:4] = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        found = crop_features(maps, torch.tensor([[2, 1, 3, 3, 0]]))
    assert found.dtype == torch.float32
    assert (found - 1).abs().max() < 1e-5


def test_without_change_both_views_are_the_image():
    image = photograph(48, 64)
    pairing = Pairing(PLAIN, grid=(12, 16))
    first, second, box = make_pair(image, pairing, (48, 64), None, 0, 0, "a")
    assert (first == image).all()
    assert (second == image).all()
    assert box == Box(0, 0, 12, 16, flip=False)


def test_view_1_shows_the_crop_that_the_box_cuts_from_view_2():
    """Equivariance of the pipeline: means of cells, as a network, are the same in both views."""
    rows, columns = np.mgrid[0:96, 0:128]
    image = np.stack([2 * rows, 1.9 * columns, rows + columns], -1).astype(np.uint8)
    pairing = Pairing(PairConfig(share=(0.5, 0.8)), grid=(12, 16))
    for name in "abcdef":
        first, second, box = make_pair(image, pairing, (48, 64), None, 3, 1, name)
        cells = [
            F.avg_pool2d(torch.from_numpy(v.copy()).permute(2, 0, 1)[None].float(), 4)
            for v in (first, second)
        ]
        moved = crop_features(cells[1], torch.tensor([box.row()]))
        # A cell is 15 levels wide; whole cells at the border are clamped, as by the released code.
        assert (cells[0] - moved)[..., 2:-2, 2:-2].abs().max() < 1.5, name


def test_draws_depend_on_seed_epoch_image_and_view_alone():
    image = photograph(48, 64)
    pairing = Pairing(PairConfig(), grid=(12, 16))

    def views(seed=0, epoch=0, name="a"):
        first, second, box = make_pair(image, pairing, (48, 64), COLOUR, seed, epoch, name)
        return first.tobytes(), second.tobytes(), box

    assert views() == views()
    for other in (views(seed=1), views(epoch=1), views(name="b")):
        assert all(a != b for a, b in zip(views(), other, strict=True))
    alone, second, _ = make_pair(
        image, Pairing(PairConfig(), (12, 16), second=False), (48, 64), COLOUR, 0, 0, "a"
    )
    assert second is None
    assert alone.tobytes() == views()[0]


def test_colours_are_drawn_as_often_and_as_far_as_published():
    draws = {}
    for view in (1, 2):
        draws[view] = [
            draw_colour(COLOUR, np.random.default_rng(seed_for(0, "pair", 0, i, f"colour {view}")))
            for i in range(4000)
        ]
    for drawn in draws.values():
        assert np.mean([d.greyscale for d in drawn]) == pytest.approx(0.2, abs=0.02)
        sigmas = [d.blur_sigma for d in drawn if d.blur_sigma is not None]
        assert np.mean(sigmas) == pytest.approx(1.05, abs=0.04)
        for name in ("brightness", "contrast", "saturation", "hue"):
            hits = [dict(d.jitter)[name] for d in drawn if name in dict(d.jitter)]
            assert len(hits) == pytest.approx(3200, abs=110)
        order = ["brightness", "contrast", "saturation", "hue"]
        assert all(
            [n for n, _ in d.jitter] == [n for n in order if n in dict(d.jitter)] for d in drawn
        )
    grey = np.array([[d.greyscale for d in drawn] for drawn in draws.values()], float)
    assert abs(np.corrcoef(grey)[0, 1]) < 0.06


def test_boxes_stay_inside_and_use_the_whole_range():
    pairing = Pairing(PairConfig(), grid=(12, 16))
    boxes = [draw_box(pairing, 0, epoch, "a") for epoch in range(400)]
    assert {b.height for b in boxes} >= set(range(6, 12))
    assert all(b.top + b.height <= 12 and b.left + b.width <= 16 for b in boxes)
    assert 160 < sum(b.flip for b in boxes) < 240


@pytest.mark.parametrize("shape", [(48, 64), (33, 100), (120, 41), (5, 7)])
def test_any_image_gives_the_middle_at_the_wanted_shape(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert middle(image, (24, 32)).shape == (24, 32, 3)
    views = make_pair(image, Pairing(PairConfig(), (7, 9)), (25, 33), COLOUR, 0, 0, "a")
    assert views[0].shape == views[1].shape == (25, 33, 3)
    assert resize(image, (24, 32)).shape == (24, 32, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"share": (0.0, 1.0)},
        {"share": (0.9, 0.5)},
        {"share": (0.5, 1.2)},
        {"flip": 2.0},
        {"enlarge": 0.0},
    ],
)
def test_impossible_views_are_refused(options):
    with pytest.raises(ConfigError):
        PairConfig(**options)


def sampler(**options):
    settings = {"batch_size": 4, "steps": 12, "epoch_steps": 3, "seed": 0, "stream": "images"}
    return EpochSampler(10, **{**settings, **options})


def test_an_epoch_is_one_permutation_and_batches_never_mix_epochs():
    batches = list(sampler())
    for epoch in range(4):
        drawn = [draw for batch in batches[3 * epoch : 3 * epoch + 3] for draw in batch]
        assert {e for _, e in drawn} == {epoch}
        order = epoch_order(10, 0, "images", epoch).tolist()
        assert [i for i, _ in drawn] == order + order[:2]
    assert batches[0] != batches[3]
    assert list(sampler(start_step=5)) == batches[5:]


def test_processes_share_each_batch():
    halves = [list(sampler(rank=r, world_size=2)) for r in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == list(sampler())
    order = epoch_order(10, 0, "clustering", 2)
    whole = pass_batches(order, 2, batch_size=4)
    assert [len(b) for b in whole] == [4, 4, 2]
    assert [i for b in whole for i, _ in b] == order.tolist()
    parts = [pass_batches(order[:9], 2, batch_size=4, rank=r, world_size=2) for r in range(2)]
    assert [len(b) for b in parts[1]] == [2, 2, 0]
    assert [a + b for a, b in zip(*parts, strict=True)] == pass_batches(order[:9], 2, batch_size=4)


class Arrays:
    def image(self, index):
        return photograph(48, 64, index)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_pairs_are_the_same_from_any_worker(workers):
    samples = [Sample(f"i{k}", None) for k in range(5)]
    loader = build_pair_loader(
        samples,
        Arrays(),
        [[(3, 0), (1, 0)], [(4, 0)], []],
        pairing=Pairing(PairConfig(), (12, 16)),
        size=(48, 64),
        colour=COLOUR,
        seed=7,
        workers=workers,
    )
    first, second, empty = loader
    assert first.ids == ("i3", "i1")
    assert first.index.tolist() == [3, 1]
    assert first.mask is None
    assert first.valid.all()
    assert first.grid_box.shape == (2, 5)
    for place, k in enumerate((3, 1)):
        one, two, box = make_pair(
            Arrays().image(k), Pairing(PairConfig(), (12, 16)), (48, 64), COLOUR, 7, 0, f"i{k}"
        )
        assert (first.image[place].permute(1, 2, 0).numpy() == one).all()
        assert (first.strong[0][place].permute(1, 2, 0).numpy() == two).all()
        assert tuple(first.grid_box[place].tolist()) == box.row()
    assert second.image.shape == (1, 3, 48, 64)
    assert empty.image.shape == (0, 3, 48, 64)
    assert DatasetInfo("x", ()).num_classes == 0  # no label is needed anywhere here

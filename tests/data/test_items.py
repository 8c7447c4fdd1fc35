import cv2
import numpy as np
import pytest
import torch

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.cache import FileReader
from pixelcontrast.data.colour import STRONG, apply_colour, draw_colour
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.items import EvalDataset, Failure, Stream, TrainDataset
from pixelcontrast.data.views import ViewConfig, draw_view

INFO = DatasetInfo("drawn", ("a", "b", "c"))
VIEW = ViewConfig(crop=(33, 40))


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i in range(3):
        image, mask = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (30, 50, 3)).astype(np.uint8))
        cv2.imwrite(str(mask), rng.integers(0, 3, (30, 50)).astype(np.uint8))
        made.append(Sample(str(i), image, mask))
    return made


def dataset(samples, labelled=True, strong_views=0, strong=STRONG, hidden_masks=False):
    return TrainDataset(
        FileReader(samples, INFO),
        samples,
        stream=Stream("s", labelled, strong_views, hidden_masks),
        view=VIEW,
        strong=strong,
        ignore_index=255,
    )


def test_a_batch_is_its_views_stacked(samples):
    part = dataset(samples, strong_views=2)[[(2, 11), (0, 12)]]
    batch = part.batch()
    reader = FileReader(samples, INFO)
    for place, (index, seed) in enumerate([(2, 11), (0, 12)]):
        view = draw_view(
            reader.image(index), reader.mask(index), VIEW, np.random.default_rng([seed, 0])
        )
        np.testing.assert_array_equal(batch.image[place].permute(1, 2, 0).numpy(), view.image)
        np.testing.assert_array_equal(batch.mask[place].numpy(), view.mask)
        np.testing.assert_array_equal(batch.valid[place].numpy(), view.mask != 255)
        np.testing.assert_allclose(batch.geometry[place], view.geometry.matrix(), rtol=1e-6)
        for number in range(2):
            params = draw_colour(STRONG, np.random.default_rng([seed, 1 + number]))
            np.testing.assert_array_equal(
                batch.strong[number][place].permute(1, 2, 0).numpy(),
                apply_colour(view.image, params),
            )
    assert batch.index.tolist() == [2, 0]
    assert batch.ids == ("2", "0")
    assert not torch.equal(batch.strong[0], batch.strong[1])


def test_strong_views_leave_the_crops_alone(samples):
    plain = dataset(samples)[[(0, 5), (1, 6)]]
    more = dataset(samples, strong_views=1)[[(0, 5), (1, 6)]]
    assert torch.equal(plain.image, more.image)
    assert torch.equal(plain.mask, more.mask)


def test_workers_send_at_most_four_bytes_a_pixel(samples):
    part = dataset(samples)[[(0, 1), (1, 2)]]
    tensors = [part.image, part.mask, part.index, part.geometry, part.boxes]
    sent = sum(t.numel() * t.element_size() for t in tensors)
    assert sent <= 4 * 2 * 33 * 40 + 200
    assert {t.dtype for t in tensors[:2]} == {torch.uint8}


def test_unlabelled_streams_never_open_masks(samples):
    for sample in samples:
        sample.mask.unlink()
    assert dataset(samples, labelled=False)[[(0, 1)]].batch().mask is None


def test_hidden_masks_are_the_crops_masks_and_never_the_label(samples):
    bare = [samples[0], Sample("1", samples[1].image)]
    draws = [(0, 7), (1, 8)]
    labelled = dataset(samples)[draws].batch()
    watched = dataset(bare, labelled=False, hidden_masks=True)[draws].batch()
    plain = dataset(bare, labelled=False)[draws].batch()
    assert plain.hidden_mask is None
    assert watched.mask is None
    assert torch.equal(watched.hidden_mask[0], labelled.mask[0])
    assert (watched.hidden_mask[1] == 255).all()  # there is none
    assert torch.equal(watched.image, plain.image)
    assert labelled.hidden_mask is None


def test_data_errors_come_out_as_values(samples):
    cv2.imwrite(str(samples[1].mask), np.zeros((5, 6), np.uint8))
    failed = dataset(samples)[[(0, 1), (1, 2)]]
    assert isinstance(failed, Failure)
    assert isinstance(failed.error, DataError)
    assert failed.error.where == samples[1].mask
    assert "50 x 30" in str(failed.error)
    assert "6 x 5" in str(failed.error)
    assert isinstance(EvalDataset(samples, INFO)[[1]], Failure)


def test_eval_items_are_whole_images(samples):
    batch = EvalDataset(samples, INFO)[[2, 1]]
    reader = FileReader(samples, INFO)
    np.testing.assert_array_equal(batch.image[0].permute(1, 2, 0).numpy(), reader.image(2))
    np.testing.assert_array_equal(batch.mask[1].numpy(), reader.mask(1))
    assert batch.ids == ("2", "1")
    assert batch.image.is_contiguous()
    moved = batch.to("cpu")
    assert torch.equal(moved.image, batch.image)
    assert torch.equal(moved.mask, batch.mask)
    bare = [Sample(s.id, s.image) for s in samples]
    assert EvalDataset(bare, INFO)[[0]].to("cpu").mask is None

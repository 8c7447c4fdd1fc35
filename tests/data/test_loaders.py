import dataclasses
import gc
import multiprocessing
import pickle

import cv2
import numpy as np
import pytest
import torch

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import loaders
from pixelcontrast.data.colour import STRONG, ColourConfig
from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.loaders import (
    Stream,
    build_eval_loader,
    build_train_loader,
    resolve_workers,
)
from pixelcontrast.data.views import ViewConfig

INFO = DatasetInfo("drawn", ("a", "b", "c"))
SIZES = [(30, 50), (1, 1), (33, 21), (30, 50), (64, 64), (30, 50), (33, 21)]


@pytest.fixture
def samples(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i, size in enumerate(SIZES):
        image, mask = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (*size, 3)).astype(np.uint8))
        cv2.imwrite(str(mask), rng.integers(0, 3, size).astype(np.uint8))
        made.append(Sample(f"street/{i}", image, mask))
    return made


def train_batches(samples, **changes):
    options = {
        "stream": Stream("labeled", labelled=True, strong_views=1),
        "view": ViewConfig(crop=(24, 31), colour=ColourConfig(brightness_shift=10)),
        "strong": STRONG,
        "batch_size": 4,
        "steps": 5,
        "seed": 7,
        "workers": 0,
    }
    return list(build_train_loader(samples, INFO, **(options | changes)))


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for field in dataclasses.fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            if isinstance(x, torch.Tensor):
                assert torch.equal(x, y), field.name
            elif field.name == "strong":
                assert all(torch.equal(p, q) for p, q in zip(x, y, strict=True))
            else:
                assert x == y


def test_batches_have_the_promised_shapes(samples):
    for batch in train_batches(samples):
        assert batch.image.shape == batch.strong[0].shape == (4, 3, 24, 31)
        assert batch.mask.shape == batch.valid.shape == (4, 24, 31)
        assert batch.image.dtype == batch.mask.dtype == torch.uint8
        assert batch.valid.dtype == torch.bool
        assert batch.geometry.dtype == torch.float32
        assert (batch.mask[~batch.valid] == 255).all()
        assert (batch.mask[batch.valid] < 3).all()
        assert batch.ids == tuple(samples[i].id for i in batch.index)


def test_same_seed_same_bytes_other_seed_other_bytes(samples):
    assert_same(train_batches(samples), train_batches(samples))
    other = train_batches(samples, seed=8)
    assert not torch.equal(other[0].image, train_batches(samples)[0].image)


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_workers_and_caches_change_nothing(samples, tmp_path, cache):
    plain = train_batches(samples)
    folder = tmp_path / "cache"
    for workers in (0, 2):
        got = train_batches(samples, workers=workers, cache=cache, cache_folder=folder)
        assert_same(got, plain)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_see_what_one_process_sees(samples, world):
    whole = train_batches(samples)
    parts = [train_batches(samples, rank=r, world_size=world) for r in range(world)]
    for step, batch in enumerate(whole):
        for name in ("image", "mask", "valid", "index", "geometry"):
            joined = torch.cat([getattr(part[step], name) for part in parts])
            assert torch.equal(joined, getattr(batch, name))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_continues_exactly(samples, workers):
    assert_same(train_batches(samples, start_step=3, workers=workers), train_batches(samples)[3:])
    resumed = build_train_loader(
        samples,
        INFO,
        stream=Stream("s", True),
        view=ViewConfig(crop=(8, 8)),
        batch_size=1,
        steps=5,
        seed=0,
        start_step=3,
        workers=0,
    )
    assert len(resumed) == 5


def test_memory_cache_is_filled_by_the_workers(samples):
    if loaders._start_method() != "fork":
        pytest.skip("the memory cache is shared by fork only")
    loader = build_train_loader(
        samples,
        INFO,
        stream=Stream("s", True),
        view=ViewConfig(crop=(8, 8)),
        batch_size=7,
        steps=2,
        seed=0,
        workers=2,
        cache="memory",
    )
    list(loader)
    assert loader.dataset.reader._filled.all()


def test_iterating_again_with_living_workers_starts_again(samples):
    loader = build_train_loader(
        samples,
        INFO,
        stream=Stream("s", True),
        view=ViewConfig(crop=(8, 8)),
        batch_size=2,
        steps=3,
        seed=0,
        workers=1,
    )
    assert_same(list(loader), list(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generators_alone(samples, workers):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train_batches(samples, workers=workers)
    list(build_eval_loader(samples, INFO, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_data_sets_can_be_sent_to_spawned_workers(samples, tmp_path):
    loader = build_train_loader(
        samples,
        INFO,
        stream=Stream("s", True),
        view=ViewConfig(crop=(8, 8)),
        batch_size=2,
        steps=2,
        seed=0,
        workers=0,
        cache="disk",
        cache_folder=tmp_path / "cache",
    )
    sent = pickle.loads(pickle.dumps(loader.dataset))
    assert_same([sent[[(1, 5)]].batch()], [loader.dataset[[(1, 5)]].batch()])


def error_of(loader):
    """The error without its traceback, which would keep the workers alive."""
    try:
        list(loader)
    except DataError as error:
        return str(error.where), str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_surface_as_they_were_and_workers_end(samples, workers):
    samples[4].image.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    options = {"stream": Stream("s", True), "view": ViewConfig(crop=(8, 8)), "batch_size": 2}
    train = build_train_loader(samples, INFO, steps=9, seed=0, workers=workers, **options)
    gc.collect()
    before = set(multiprocessing.active_children())  # another test's may be kept
    gc.disable()  # workers must end by themselves, not when the collector happens to come by
    try:
        for loader in (train, build_eval_loader(samples, INFO, workers=workers)):
            where, message = error_of(loader)
            assert where == str(samples[4].image)
            assert "Traceback" not in message
            assert len(message.splitlines()) <= 3
        if loaders._start_method() == "fork":
            assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_impossible_requests_are_refused_before_loading(samples):
    bare = [Sample(s.id, s.image) for s in samples]
    with pytest.raises(DataError, match="7 image"):
        train_batches(bare)
    assert train_batches(bare, stream=Stream("u", labelled=False), strong=None)[0].mask is None
    with pytest.raises(ConfigError, match="strong views"):
        train_batches(samples, strong=None)
    with pytest.raises(ConfigError, match="workers"):
        train_batches(samples, workers=-1)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_eval_sees_every_image_once_at_its_size(samples, batch_size, world):
    seen = []
    for rank in range(world):
        loader = build_eval_loader(
            samples, INFO, batch_size=batch_size, rank=rank, world_size=world, workers=0
        )
        batches = list(loader)
        assert len(loader) == len(batches)
        firsts = [batch.index[0].item() for batch in batches]
        assert firsts == sorted(firsts)
        for batch in batches:
            assert len(batch.index) <= batch_size
            for place, index in enumerate(batch.index.tolist()):
                assert batch.image[place].shape == (3, *SIZES[index])
                assert batch.ids[place] == samples[index].id
                assert batch.mask[place].shape == SIZES[index]
                seen.append(index)
    assert sorted(seen) == list(range(7))


def test_eval_batches_equal_sizes_together(samples):
    batches = list(build_eval_loader(samples, INFO, batch_size=3, workers=0))
    assert [b.index.tolist() for b in batches] == [[0, 3, 5], [1], [2, 6], [4]]
    mixed = [Sample(s.id, s.image, s.mask if i else None) for i, s in enumerate(samples)]
    batches = list(build_eval_loader(mixed, INFO, batch_size=3, workers=2))
    assert [b.index.tolist() for b in batches] == [[0], [1], [2, 6], [3, 5], [4]]
    assert [b.mask is None for b in batches] == [True, False, False, False, False]


def test_auto_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(loaders.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert resolve_workers("auto") == 8
    assert resolve_workers("auto", 4) == 3
    assert resolve_workers("auto", 32) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert resolve_workers("auto", 32) == 7
    assert resolve_workers(0, 4) == 0


def test_workers_fork_where_that_is_possible():
    if "fork" in multiprocessing.get_all_start_methods()[:1]:
        assert loaders._start_method() == "fork"

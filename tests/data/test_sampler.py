from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data.sampler import StepSampler


def sampler(count=7, batch_size=4, steps=20, seed=3, stream="labeled", **more):
    return StepSampler(count, batch_size=batch_size, steps=steps, seed=seed, stream=stream, **more)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 25), st.integers(0, 99))
def test_epochs_are_permutations_and_nothing_is_dropped(count, batch, steps, seed):
    batches = list(sampler(count, batch, steps, seed))
    assert [len(b) for b in batches] == [batch] * steps
    order = [index for b in batches for index, _ in b]
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == list(range(count))
    seen = Counter(order)
    assert not order or max(seen.values()) - min(seen.get(i, 0) for i in range(count)) <= 1


@given(st.integers(1, 20), st.sampled_from([1, 2, 3, 4]), st.integers(1, 3), st.integers(0, 12))
def test_ranks_share_the_batch_of_one_process(count, world, share, start):
    batch = world * share
    whole = list(sampler(count, batch, 12, start_step=start))
    parts = [
        list(sampler(count, batch, 12, start_step=start, rank=r, world_size=world))
        for r in range(world)
    ]
    for step, batch_of_one in enumerate(whole):
        assert [draw for part in parts for draw in part[step]] == batch_of_one


@given(st.integers(0, 20))
def test_start_step_equals_skipping(start):
    assert list(sampler(start_step=start)) == list(sampler())[start:]
    assert len(sampler(start_step=start)) == 20


def test_iterating_again_gives_the_same():
    one = sampler()
    assert list(one) == list(one)


def test_streams_seeds_and_draws_differ():
    base = list(sampler(count=50))
    assert base != list(sampler(count=50, seed=4))
    assert base != list(sampler(count=50, stream="unlabeled"))
    draws = [seed for batch in sampler(count=2, batch_size=8, steps=100) for _, seed in batch]
    assert len(set(draws)) == len(draws)
    epochs = [i for b in sampler(count=20, batch_size=20, steps=3) for i, _ in b]
    assert epochs[:20] != epochs[20:40] != epochs[40:]


def test_the_order_never_changes_between_versions():
    """A change here breaks the resuming of runs that other versions started."""
    assert sampler(count=5, batch_size=3, steps=2, seed=0).batch(0) == [
        (2, 4228677932445830443),
        (0, 6015200593245821159),
        (1, 8607610750004672814),
    ]


def test_impossible_settings_are_refused():
    with pytest.raises(DataError, match="no images"):
        sampler(count=0)
    with pytest.raises(ConfigError, match="shared by 3"):
        sampler(batch_size=4, world_size=3)
    with pytest.raises(ConfigError, match="rank 2"):
        sampler(rank=2, world_size=2)
    with pytest.raises(ConfigError, match="step 21 of 20"):
        sampler(start_step=21)

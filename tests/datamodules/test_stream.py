"""The stream's arithmetic: permutations, positions, slices."""

import pickle

import numpy as np
import pytest

from datamodules.stream import (
    SampleOrder,
    accumulation_for,
    check_batch_size,
    epoch_permutation,
    evaluation_positions,
    micro_batch_positions,
)
from meddiff.common.errors import UserError


def test_permutation_is_a_function_of_seed_and_epoch():
    first = epoch_permutation(50, 0, 3)
    assert sorted(first) == list(range(50))
    np.testing.assert_array_equal(first, epoch_permutation(50, 0, 3))
    assert not np.array_equal(first, epoch_permutation(50, 1, 3))  # controls: seed and epoch matter
    assert not np.array_equal(first, epoch_permutation(50, 0, 4))


def test_permutations_are_uniform():
    firsts = np.array([epoch_permutation(5, 0, epoch) for epoch in range(4000)])
    for place in range(5):
        shares = np.bincount(firsts[:, place], minlength=5) / 4000
        assert np.abs(shares - 0.2).max() < 0.03  # 4.7 standard deviations


def test_every_epoch_holds_every_sample_once():
    order = SampleOrder(7, 0)
    stream = [order.position_to_sample(position) for position in range(28)]
    for epoch in range(4):
        part = stream[7 * epoch : 7 * epoch + 7]
        assert {e for e, _ in part} == {epoch}
        assert sorted(sample for _, sample in part) == list(range(7))
    again = pickle.loads(pickle.dumps(order))
    assert [again.position_to_sample(position) for position in range(27, -1, -1)] == stream[::-1]  # any order of asking


@pytest.mark.parametrize("start", [0, 37])
@pytest.mark.parametrize(("world", "accumulate"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4)])
def test_ranks_and_micro_batches_read_the_stream_in_order(world, accumulate, start):
    read = [
        position
        for step in range(3)
        for part in range(accumulate)
        for rank in range(world)
        for position in micro_batch_positions(step, part, rank, world, accumulate, 8, start)
    ]
    assert read == list(range(start, start + 24))


def test_uneven_batches_are_refused_with_the_numbers():
    assert check_batch_size(24, 4, 3) == 2
    with pytest.raises(UserError, match=r"batch_size 10 .* 4 ranks x 2 accumulated .* = 8 equal parts: use 8 or 16"):
        check_batch_size(10, 4, 2)
    with pytest.raises(UserError, match=r"use 4$"):
        check_batch_size(3, 4, 1)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 16])
def test_evaluation_counts_every_sample_once(world):
    shares = [evaluation_positions(10, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    counted = [place for share in shares for place, weight in share if weight]
    assert sorted(counted) == list(range(10))
    padding = [place for share in shares for place, weight in share if not weight]
    assert set(padding) <= {9}


@pytest.mark.parametrize(
    ("batch", "world", "largest", "parts"), [(256, 16, 16, 1), (256, 4, 16, 4), (256, 1, 16, 16), (264, 12, 16, 2)]
)
def test_micro_batches_follow_from_the_ranks(batch, world, largest, parts):
    assert accumulation_for(batch, world, largest) == parts
    # the control: one micro-batch fewer would be too large
    assert parts == 1 or batch / world / (parts - 1) > largest


@pytest.mark.parametrize(
    ("batch", "world", "largest", "nearest"), [(256, 12, 16, 264), (34, 2, 16, 32), (3, 16, 16, 16), (255, 16, 16, 256)]
)
def test_what_does_not_divide_is_refused_with_the_nearest_that_does(batch, world, largest, nearest):
    with pytest.raises(UserError, match=rf"use {nearest}$"):
        accumulation_for(batch, world, largest)
    assert accumulation_for(nearest, world, largest) >= 1

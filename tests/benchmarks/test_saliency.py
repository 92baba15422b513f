"""What the benchmark of batched masks rests on: both ways give one map, and its floor counts the U-Net's work."""

from dataclasses import replace

import pytest
import torch

from benchmarks.saliency import Bench, measure, report
from meddiff.attribution.df_rise import FAST
from tests.builders.drawn_parts import CountedPasses


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench("cpu", 8, 16, replace(FAST, masks=5), half=False)


def test_both_ways_make_the_same_map_of_as_many_evaluations(bench: Bench) -> None:
    found = []
    for batch_size in (2, 64):
        with CountedPasses(bench.model) as counted:
            found.append(bench.maps(batch_size))
        assert counted.samples == bench.evaluations == 10
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)
    assert found[0].std() > 1e-3
    with CountedPasses(bench.model) as counted:
        bench.unet_alone(5)
    assert counted.samples == 10


def test_the_floor_counts_more_for_more_work(bench: Bench) -> None:
    wider = Bench("cpu", 8, 32, bench.options, half=False)
    # at twice the width about four times the operations; what does not grow with the square leaves it between
    assert 2 < wider.operations() / bench.operations() < 4.5
    weights = sum(p.numel() for p in bench.model.unet.parameters() if p.ndim == 4)
    assert bench.operations() > 2 * weights, "each kernel is used at one place at least"


def test_the_table_has_a_line_for_each_and_a_ratio(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(bench, 8, repeats=1) > 0
    printed = capsys.readouterr().out
    for told in ("one at a time", "batched (8)", "U-Net alone (8)", "GFLOP each", "times faster", "maps differ by"):
        assert told in printed


def test_the_first_run_of_a_line_does_not_count() -> None:
    calls: list[str] = []
    timed = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, "cpu")
    assert calls == ["a", "b"] * 3
    assert all(0 <= one.seconds < float("inf") for one in timed.values())

"""What the benchmark of memory of `lightning prepare` rests on: its peaks, and that its pipeline writes all images."""

import sys

import pytest

from benchmarks.prepare_memory import make_cohort, peak_memory, prepare


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for memory in /proc")
def test_peaks_are_of_the_process_and_of_the_largest_below_it():
    # held for many looks at it, so that one falls into it on a busy machine too
    hold = "import time; block = bytearray({} * 2**20); time.sleep(2)"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold.format(120)!r}]); {hold.format(30)}"
    ballast = bytearray(200 * 2**20)  # of this process, which a child must not be charged with
    main, started = peak_memory([sys.executable, "-c", hold.format(60)])
    assert 60 < main.own < main.resident < 120
    assert started.own == 0
    main, started = peak_memory([sys.executable, "-c", start])
    assert 30 < main.own < 80
    assert 120 < started.own < started.resident < 180
    assert len(ballast) == 200 * 2**20


def test_the_pipeline_of_the_memory_table_writes_all_images(tmp_path, vae_folder):
    make_cohort(tmp_path / "cohort", [12, 20])
    for count in (12, 20):
        assert prepare(tmp_path / "cohort", tmp_path / str(count), str(vae_folder), count, "lightning") == count

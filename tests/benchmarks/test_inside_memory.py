"""The memory of the tools that look inside: the script runs at a small size, and what it counts is what is alive."""

import pytest
import torch

from benchmarks import inside_memory
from tests.builders.tiny import TEXT, UNET


def test_live_bytes_are_those_of_the_tensors_that_are_kept() -> None:
    with inside_memory.LiveBytes(100) as live:
        first = torch.zeros(1000, dtype=torch.uint8, device="meta")
        view = first.view(10, 100)
        second = first + 1
        del second
        third = torch.zeros(500, dtype=torch.uint8, device="meta")
    assert live.peak == 100 + 2000, "a view is nothing of its own, what is gone is gone"
    assert live.alive == 100 + 1500
    del view, third


@pytest.mark.slow
def test_every_tool_runs_and_is_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At a small size: maps are finite, and what keeps activations for a backward pass takes more than what does not."""
    monkeypatch.setattr(inside_memory, "STABLE_DIFFUSION_2", (UNET, TEXT))
    monkeypatch.setattr(
        inside_memory, "VAE", {**inside_memory.VAE, "block_out_channels": [32] * 4, "layers_per_block": 1}
    )
    monkeypatch.setattr("sys.argv", ["inside_memory", "--latent", "8"])
    inside_memory.main()
    told = capsys.readouterr().out.splitlines()
    tools = ["attention", "df_rise", "games", "cam", "relevance"]
    assert [line.split(":")[0] for line in told] == ["weights", "one step of a path", *tools]
    assert all(line.endswith(", finite") for line in told[2:])
    found = {tool: inside_memory.counted(tool, 16, torch.float32) for tool in inside_memory.TOOLS}
    assert found["df_rise"] < found["cam"]
    assert found["attention"] < found["cam"] < found["relevance"]
    assert found["classifier"] > found["attention"]

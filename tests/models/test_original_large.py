"""A file of the size of Stable Diffusion 2: no second copy of all numbers is made on the way in or out."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from meddiff.models.weights.original_text import tell_open_clip, text_from_open_clip
from meddiff.models.weights.original_unet import tell_unet, unet_from_original
from meddiff.models.weights.original_vae import tell_vae, vae_from_original
from meddiff.models.weights.single_file import write_single_file
from tests.builders.original_files import State, open_clip_tower, unet, vae

#: Writes the peak of this process's memory in bytes; Linux counts in units of 1024.
READ = """
import resource, sys
from meddiff.models.backbones import build_unet, load_vae
from meddiff.models.weights.stored import stored_part
unet, vae = build_unet(sys.argv[1]), load_vae(sys.argv[1])
tower = stored_part(sys.argv[1], "text_encoder").read(False)
assert sum(one.numel() for one in unet.parameters()) == 865_910_724
assert sum(one.float().sum() for one in tower.values()) > 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def repeated(state: State) -> State:
    """One number for all of a tensor, which takes no memory until it is written."""
    return {name: torch.full((1,), 0.01).expand(value.shape) for name, value in state.items()}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's count of memory")
def test_a_model_of_full_size_is_read_with_one_copy_in_memory(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = dict(
            unet(True, 1024, widths=(320, 640, 1280, 1280), attends=(True, True, True, False), layers=2).state_dict()
        )
        coder = dict(vae((128, 256, 512, 512), layers=2).state_dict())
        tower = dict(open_clip_tower(1024, 23, 49408).state_dict())
    del tower["text_projection"]
    configs = tell_unet(net, "unet"), tell_vae(coder, "vae"), tell_open_clip(tower, "text_encoder")
    write_single_file(
        tmp_path / "sd2.safetensors",
        {
            "unet": (configs[0], unet_from_original(repeated(net), configs[0])),
            "vae": (configs[1], vae_from_original(repeated(coder), configs[1])),
            "text_encoder": (configs[2], text_from_open_clip(repeated(tower), 23)),
        },
        "sd2",
        half=True,
    )
    said = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "sd2.safetensors")], capture_output=True, text=True, check=True
    )
    peak = int(said.stdout.split()[-1])
    # U-Net and autoencoder in float32 are 3.8 GB, the mapped file 2.6 GB; a second copy of the U-Net would be 3.5 GB more
    assert peak < 8.5e9, peak

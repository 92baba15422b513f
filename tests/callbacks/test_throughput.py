"""What throughput is held against: counted operations and the machine's peak."""

from pathlib import Path

from callbacks.throughput import device_peak, unet_flops
from tests.builders.drawn_parts import make_model


def test_flops_are_counted_without_computing(vae_folder: Path) -> None:
    model = make_model(vae_folder)
    flops = unet_flops(model)
    parameters = sum(p.numel() for p in model.unet.parameters())
    assert flops > 2 * parameters  # a convolution uses its weights at many places
    assert device_peak("NVIDIA H200") == 989e12
    assert device_peak("Some CPU") is None

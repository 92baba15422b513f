"""What is computed on shapes alone is what real tensors take."""

import pytest
import torch
from torch import Tensor, nn

from callbacks.throughput import unet_flops
from meddiff.models.backbones import build_unet
from meddiff.models.footprint import BLOCKS, Footprint, footprint
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.weights.sources import Source
from tests.builders.tiny import TEXT, UNET

#: Large enough that activations and not odds and ends are compared.
WIDE: dict[str, object] = {**UNET, "sample_size": 32}


@pytest.fixture(scope="module")
def computed() -> Footprint:
    return footprint(WIDE, TEXT, "32")


def really_kept(source: Source, batch: int, checkpointing: bool = False) -> int:
    """Bytes that autograd keeps in a real forward pass on the CPU, weights left out."""
    torch.manual_seed(0)
    network = build_unet(source)
    if checkpointing:
        network.enable_gradient_checkpointing()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    seen: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in weights:
            seen.setdefault(value.untyped_storage().data_ptr(), value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        text = torch.zeros(batch, 77, int(str(TEXT["width"])))
        network(torch.zeros(batch, 4, 32, 32), torch.zeros(batch), encoder_hidden_states=text)
    return sum(value.untyped_storage().nbytes() for value in seen.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_of_real_tensors(computed: Footprint, checkpointing: bool) -> None:
    """The kernels differ a little (row sums of attention), the rest is the same."""
    real = really_kept(WIDE, 2, checkpointing) - really_kept(WIDE, 1, checkpointing)
    assert (computed.kept_checkpointed if checkpointing else computed.kept) == pytest.approx(real, rel=0.03)


def test_checkpointing_keeps_less_and_half_precision_about_half(computed: Footprint) -> None:
    assert computed.kept_checkpointed < 0.5 * computed.kept
    assert 0 < computed.block < computed.kept
    half = footprint(WIDE, TEXT, "bf16")
    assert 0.4 * computed.kept < half.kept < 0.9 * computed.kept  # norms stay float32 under autocast
    assert (half.unet, half.text, half.unet_flops) == (computed.unet, computed.text, computed.unet_flops)


def test_parameters_and_flops_are_the_model_s(computed: Footprint) -> None:
    model = LatentDiffusion.build(WIDE, TEXT)
    assert computed.unet == sum(p.numel() for p in model.unet.parameters())
    assert computed.text == sum(p.numel() for p in model.text_encoder.parameters())
    assert computed.unet_flops == pytest.approx(unet_flops(model))  # as the throughput of a run counts them


def test_a_larger_image_takes_more(computed: Footprint) -> None:
    """Four times the pixels; the control of a number that does not look at the shapes."""
    assert footprint(WIDE, TEXT, "32", side=64).kept > 3.5 * computed.kept


def test_nothing_of_it_stays_behind(computed: Footprint) -> None:
    assert not torch.is_autocast_enabled("cuda")
    assert nn.functional.scaled_dot_product_attention.__module__ != footprint.__module__
    assert set(BLOCKS) <= {type(part).__name__ for part in build_unet(WIDE).modules()}


@pytest.mark.parametrize(("route", "text"), [("time", None), ("time", TEXT), ("tokens", TEXT)])
def test_prototypes_count_with_and_without_a_text(route, text):
    """Parameters are those of the model that is built; the encoder's FLOPs are a part of the U-Net's."""
    from callbacks.throughput import trained_flops
    from meddiff.models.patronus import Patronus
    from meddiff.models.prototype_options import PrototypeOptions
    from tests.builders.patronus import PLAIN_UNET, STACK

    options = PrototypeOptions(layers=STACK, number=6, dimension=16, route=route)
    unet = PLAIN_UNET if text is None else UNET
    found, model = footprint(unet, text, "32", prototypes=options), Patronus.of(unet, text, None, options)
    built = sum(
        p.numel() for name, p in model.named_parameters() if not name.startswith(("text_encoder", "prototype_t"))
    )
    assert found.unet == built
    assert (found.text > 0, found.text_flops > 0) == (text is not None, text is not None)
    assert found.unet_flops > footprint(unet, text, "32").unet_flops
    assert trained_flops(model) > 0

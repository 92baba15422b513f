"""What a training of a model takes on a GPU, computed without one: parameters, FLOPs, and the memory of activations.

The networks run forward as torch's fake tensors (shapes only, no numbers, no GPU, a few seconds at any size), under the same
autocast as in training and with fused attention, and what autograd keeps for the backward pass is added up.
Source: own; FLOPs by torch.utils.flop_counter.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meddiff.common.errors import UserError
from meddiff.models.backbones import unet_skeleton
from meddiff.models.latent_diffusion import text_width
from meddiff.models.prototype_options import PrototypeOptions, encoder_of
from meddiff.models.prototype_unet import place_of
from meddiff.models.text.build import tower_skeleton
from meddiff.models.text.no_text import NoText
from meddiff.models.text.tower import Conditioning
from meddiff.models.weights.sources import Source
from meddiff.models.weights.stored import part_config

Precision = Literal["32", "bf16", "16"]
DTYPES = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
#: Parts of diffusers' U-Nets that activation checkpointing computes again, one by one.
BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")
DEVICE = "cuda"
#: Stable Diffusion 2's U-Net and text tower, for a plan before the weights are there.
STABLE_DIFFUSION_2: tuple[Source, Source] = (
    {
        "sample_size": 64,
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    {"width": 1024, "heads": 16, "layers": 23},
)


@dataclass(frozen=True)
class Footprint:
    """What one image costs, and what does not depend on the batch.

    Attributes:
        unet: parameters.
        text: parameters of the text tower.
        unet_flops: of one forward pass for one image; training costs three.
        text_flops: the same of the tower.
        kept: bytes an image that the U-Net's forward pass keeps for the backward pass.
        kept_checkpointed: the same where its blocks are computed again.
        block: bytes an image of the largest block, which lives while it is computed again.
        text_kept: bytes an image that the tower keeps, where it learns.
    """

    unet: int
    text: int
    unet_flops: float
    text_flops: float
    kept: int
    kept_checkpointed: int
    block: int
    text_kept: int


def footprint(
    unet: Source,
    text_encoder: Source | None,
    precision: Precision = "bf16",
    side: int | None = None,
    prototypes: PrototypeOptions | None = None,
) -> Footprint:
    """What a training of these parts takes; reads no weights.

    Args:
        unet, text_encoder: as :class:`LatentDiffusionModule` takes them, or as :class:`PatronusModule` does.
        precision: of activations, ``trainer.precision``; weights are float32.
        side: of the latents; None takes the U-Net's own ``sample_size``.
        prototypes: that the U-Net is told of; their encoder counts as a part of it.

    Raises:
        UserError: a source is not there, or says no size.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    encoder = None
    if prototypes is not None and prototypes.route == "time":
        unet = {**part_config(unet, "unet"), **place_of(prototypes.number)}
    network = unet_skeleton(unet)
    tower = NoText(text_width(network)) if text_encoder is None else tower_skeleton(text_encoder)
    if prototypes is not None:
        encoder = encoder_of(prototypes, network.config.in_channels)
    size = side or network.config.sample_size
    if size is None:
        raise UserError("unet: its config has no sample_size, so nobody knows how large an image is: add it.")
    height, width = (size, size) if isinstance(size, int) else size
    length = tower.tokenizer.max_length
    with FakeTensorMode():
        put_on_device(network.train())
        put_on_device(tower)
        if encoder is not None:
            put_on_device(encoder)

        def draw(batch: int) -> Tensor:
            noisy = torch.empty(batch, network.config.in_channels, height, width, device=DEVICE)
            told = Conditioning(torch.empty(batch, length, tower.width, device=DEVICE))
            if encoder is not None and prototypes is not None:
                activations = encoder(noisy)
                told = Conditioning(told.states, activations=activations)
                if prototypes.route == "tokens":
                    told = Conditioning(torch.empty(batch, length + encoder.m, tower.width, device=DEVICE))
            prediction: Tensor = network(noisy, torch.zeros(batch, device=DEVICE), **told.arguments()).sample
            return prediction

        def read(batch: int) -> Tensor:
            tokens = torch.zeros(batch, length, dtype=torch.long, device=DEVICE)
            states: Tensor = tower(tokens)
            return states

        unet_flops = flops(lambda: draw(1))
        kept, block = per_image(network, draw, precision)
        text_flops, text_kept = 0.0, 0
        if text_encoder is not None:
            text_flops, (text_kept, _) = flops(lambda: read(1)), per_image(tower, read, precision)
        network.enable_gradient_checkpointing()
        checkpointed, _ = per_image(network, draw, precision)
    unet_size, text_size = (sum(p.numel() for p in part.parameters()) for part in (network, tower))
    if encoder is not None:
        unet_size += sum(p.numel() for p in encoder.parameters())
    return Footprint(unet_size, text_size, unet_flops, text_flops, kept, checkpointed, block, text_kept)


def put_on_device(network: nn.Module) -> None:
    """Give a skeleton fake numbers on the GPU; within torch's FakeTensorMode."""
    for part in network.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype, device=DEVICE))
        for name, value in part._buffers.items():
            if value is not None:
                part._buffers[name] = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)


def flops(run: Callable[[], object]) -> float:
    """FLOPs of ``run``, 2 a multiplication and addition."""
    from torch.utils.flop_counter import FlopCounterMode

    with fused_attention(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def per_image(network: nn.Module, run: Callable[[int], Tensor], precision: Precision) -> tuple[int, int]:
    """Bytes that autograd keeps for each further image, of all and of the largest of :data:`BLOCKS`.

    What does not grow with the batch (half-precision copies of the weights) is no part of it.
    """
    (one, block), (two, larger) = (kept_bytes(network, run, batch, precision) for batch in (1, 2))
    return two - one, larger - block


def kept_bytes(network: nn.Module, run: Callable[[int], Tensor], batch: int, precision: Precision) -> tuple[int, int]:
    """Bytes of all tensors but the weights that are kept for the backward pass of ``run(batch)``: in all, largest block."""
    weights = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    seen: dict[int, Tensor] = {}  # holds them, so that no storage's number is given twice
    inside: list[tuple[int, int]] = []

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage._cdata not in weights:
            seen.setdefault(storage._cdata, value)
        return value

    def total() -> int:
        return sum(value.untyped_storage().nbytes() for value in seen.values())

    begun: list[int] = []
    hooks = []
    for part in network.modules():
        if type(part).__name__ in BLOCKS:
            hooks.append(part.register_forward_pre_hook(lambda *_: begun.append(total())))
            hooks.append(part.register_forward_hook(lambda *_: inside.append((begun.pop(), total()))))
    try:
        with (
            fused_attention(),
            autocast(precision),
            torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
        ):
            run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return total(), max((after - before for before, after in inside), default=0)


@contextmanager
def autocast(precision: Precision) -> Iterator[None]:
    """A GPU's autocast, also where there is no GPU, which ``torch.autocast`` refuses."""
    if precision == "32":
        yield
        return
    before = torch.is_autocast_enabled(DEVICE), torch.get_autocast_dtype(DEVICE)
    torch.set_autocast_enabled(DEVICE, True)
    torch.set_autocast_dtype(DEVICE, DTYPES[precision])
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(DEVICE, before[0])
        torch.set_autocast_dtype(DEVICE, before[1])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention as a GPU computes it; without one torch would choose the kind that keeps all of its weights."""
    plain = F.scaled_dot_product_attention

    def fused(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **_: float | bool | None,
    ) -> Tensor:
        kernels = torch.ops.aten
        if attn_mask is None and query.dtype != torch.float32:
            found: tuple[Tensor, ...] = kernels._scaled_dot_product_flash_attention(
                query, key, value, dropout_p, is_causal
            )
        else:
            bias = attn_mask
            if bias is not None:
                bias = bias.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
            found = kernels._scaled_dot_product_efficient_attention(query, key, value, bias, True, dropout_p, is_causal)
        return found[0]

    F.scaled_dot_product_attention = fused  # type: ignore[assignment]  # takes what diffusers and open_clip give
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain

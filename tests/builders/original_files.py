"""Tiny Stable Diffusions in their first layout: the names come from modules that are nested as CompVis' and open_clip's are.

Nothing here knows the tables of `meddiff.models.weights`: a wrong name there is wrong against these.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

State = dict[str, Tensor]
#: Channels, layers a level, which levels attend; rows of a table of tokens.
WIDTHS, LAYERS, ATTENDS = (32, 64), 1, (True, False)
VOCABULARY = 200
ALL_TOKENS = 49408


def res_block(inside: int, out: int, embedding: int) -> nn.Module:
    block = nn.Module()
    block.in_layers = nn.Sequential(nn.GroupNorm(32, inside), nn.SiLU(), nn.Conv2d(inside, out, 3, padding=1))
    block.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
    block.out_layers = nn.Sequential(nn.GroupNorm(32, out), nn.SiLU(), nn.Dropout(), nn.Conv2d(out, out, 3, padding=1))
    block.skip_connection = nn.Identity() if inside == out else nn.Conv2d(inside, out, 1)
    return block


def attention(width: int, context: int) -> nn.Module:
    block = nn.Module()
    block.to_q, block.to_k = nn.Linear(width, width, bias=False), nn.Linear(context, width, bias=False)
    block.to_v = nn.Linear(context, width, bias=False)
    block.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout())
    return block


def spatial_transformer(width: int, context: int, depth: int, linear: bool) -> nn.Module:
    whole = nn.Module()
    whole.norm = nn.GroupNorm(32, width)
    whole.proj_in, whole.proj_out = (nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1) for _ in "io")
    whole.transformer_blocks = nn.ModuleList()
    for _ in range(depth):
        block, gate, feed = nn.Module(), nn.Module(), nn.Module()
        gate.proj = nn.Linear(width, 8 * width)
        feed.net = nn.Sequential(gate, nn.Dropout(), nn.Linear(4 * width, width))
        block.attn1, block.ff, block.attn2 = attention(width, width), feed, attention(width, context)
        block.norm1, block.norm2, block.norm3 = (nn.LayerNorm(width) for _ in range(3))
        whole.transformer_blocks.append(block)
    return whole


def unet(
    linear: bool,
    context: int,
    inside: int = 4,
    widths: tuple[int, ...] = WIDTHS,
    layers: int = LAYERS,
    attends: tuple[bool, ...] = ATTENDS,
    depth: int = 1,
) -> nn.Module:
    """A ``UNetModel``; it has the names and shapes and computes nothing."""
    net, embedding, now = nn.Module(), 4 * widths[0], widths[0]
    net.time_embed = nn.Sequential(nn.Linear(widths[0], embedding), nn.SiLU(), nn.Linear(embedding, embedding))
    net.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(inside, now, 3, padding=1))])
    kept = [now]
    for level, width in enumerate(widths):
        for _ in range(layers):
            parts = [res_block(now, width, embedding)]
            parts += [spatial_transformer(width, context, depth, linear)] if attends[level] else []
            net.input_blocks.append(nn.Sequential(*parts))
            now = width
            kept.append(now)
        if level < len(widths) - 1:
            down = nn.Module()
            down.op = nn.Conv2d(now, now, 3, stride=2, padding=1)
            net.input_blocks.append(nn.Sequential(down))
            kept.append(now)
    middle = spatial_transformer(now, context, depth, linear)
    net.middle_block = nn.Sequential(res_block(now, now, embedding), middle, res_block(now, now, embedding))
    net.output_blocks = nn.ModuleList()
    for level, width in reversed(list(enumerate(widths))):
        for layer in range(layers + 1):
            parts = [res_block(now + kept.pop(), width, embedding)]
            parts += [spatial_transformer(width, context, depth, linear)] if attends[level] else []
            now = width
            if level and layer == layers:
                up = nn.Module()
                up.conv = nn.Conv2d(now, now, 3, padding=1)
                parts.append(up)
            net.output_blocks.append(nn.Sequential(*parts))
    net.out = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, 4, 3, padding=1))
    return net


def vae_block(inside: int, out: int) -> nn.Module:
    block = nn.Module()
    block.norm1, block.conv1 = nn.GroupNorm(32, inside), nn.Conv2d(inside, out, 3, padding=1)
    block.norm2, block.conv2 = nn.GroupNorm(32, out), nn.Conv2d(out, out, 3, padding=1)
    if inside != out:
        block.nin_shortcut = nn.Conv2d(inside, out, 1)
    return block


def vae_middle(width: int) -> nn.Module:
    middle, heads = nn.Module(), nn.Module()
    heads.norm = nn.GroupNorm(32, width)
    heads.q, heads.k, heads.v, heads.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))
    middle.block_1, middle.attn_1, middle.block_2 = vae_block(width, width), heads, vae_block(width, width)
    return middle


def vae(widths: tuple[int, ...] = (32, 64, 64, 64), layers: int = 1, latent: int = 4) -> nn.Module:
    """A first-stage ``AutoencoderKL``; it has the names and shapes and computes nothing."""
    net, encoder, decoder = nn.Module(), nn.Module(), nn.Module()
    encoder.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
    encoder.down, decoder.up, now = nn.ModuleList(), nn.ModuleList(), widths[0]
    for level, width in enumerate(widths):
        one = nn.Module()
        one.block, one.attn = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers):
            one.block.append(vae_block(now, width))
            now = width
        if level < len(widths) - 1:
            one.downsample = nn.Module()
            one.downsample.conv = nn.Conv2d(now, now, 3, stride=2)
        encoder.down.append(one)
    encoder.mid, decoder.mid = vae_middle(now), vae_middle(now)
    encoder.norm_out, encoder.conv_out = nn.GroupNorm(32, now), nn.Conv2d(now, 2 * latent, 3, padding=1)
    decoder.conv_in = nn.Conv2d(latent, now, 3, padding=1)
    for level, width in reversed(list(enumerate(widths))):
        one = nn.Module()
        one.block, one.attn = nn.ModuleList(), nn.ModuleList()
        for _ in range(layers + 1):
            one.block.append(vae_block(now, width))
            now = width
        if level:
            one.upsample = nn.Module()
            one.upsample.conv = nn.Conv2d(now, now, 3, padding=1)
        decoder.up.insert(0, one)
    decoder.norm_out, decoder.conv_out = nn.GroupNorm(32, now), nn.Conv2d(now, 3, 3, padding=1)
    net.encoder, net.decoder = encoder, decoder
    net.quant_conv, net.post_quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1), nn.Conv2d(latent, latent, 1)
    return net


def clip_tower(width: int = 64, layers: int = 2, vocabulary: int = VOCABULARY) -> State:
    """transformers' tower, under the names its files have had since SD 1."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
    )
    names = CLIPTextModel(config).state_dict()
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in names.items()}


def open_clip_tower(width: int = 64, layers: int = 3, vocabulary: int = VOCABULARY) -> nn.Module:
    """open_clip's whole tower: the last block and the projection are there and do not run."""
    from open_clip.transformer import TextTransformer

    return TextTransformer(
        context_length=77, vocab_size=vocabulary, width=width, heads=width // 64, layers=layers, output_dim=width
    )


def drawn(state: State, seed: int) -> State:
    """The same names with new numbers: norms and biases are no ones and zeros, so that no two tensors are alike."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=draw) * 0.05 for name, value in state.items()}


def original_parts(
    version: int, seed: int = 0, unet_options: dict[str, object] | None = None, vocabulary: int = VOCABULARY
) -> dict[str, State]:
    """States of the parts of Stable Diffusion 1 or 2, without their beginnings."""
    tower = (
        clip_tower(vocabulary=vocabulary) if version == 1 else dict(open_clip_tower(vocabulary=vocabulary).state_dict())
    )
    tower.pop("attn_mask", None)
    if version == 2:
        tower["logit_scale"] = torch.zeros(())
    parts = {
        "unet": dict(unet(version == 2, 64, **(unet_options or {})).state_dict()),  # type: ignore[arg-type]
        "vae": dict(vae().state_dict()),
        "text_encoder": tower,
    }
    return {part: drawn(state, seed + k) for k, (part, state) in enumerate(parts.items())}


def original_state(
    version: int, seed: int = 0, ema: bool = False, vocabulary: int = VOCABULARY, **unet_options: object
) -> State:
    """All tensors of a file, with a training's buffers and, if asked for, its averages."""
    parts = original_parts(version, seed, unet_options, vocabulary)
    tower = "cond_stage_model.transformer." if version == 1 else "cond_stage_model.model."
    beginnings = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": tower}
    state: State = OrderedDict()
    state["betas"], state["alphas_cumprod"], state["logvar"] = torch.ones(1000), torch.ones(1000), torch.zeros(1000)
    for part, names in parts.items():
        state |= {f"{beginnings[part]}{name}": value for name, value in names.items()}
    if version == 1:
        state[f"{tower}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    if ema:
        averaged = drawn(parts["unet"], seed + 100)
        shadows = {f"model_ema.{('diffusion_model.' + name).replace('.', '')}": v for name, v in averaged.items()}
        state |= shadows | {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    return state


def write_original(
    path: Path, version: int, seed: int = 0, ema: bool = False, vocabulary: int = VOCABULARY, **unet_options: object
) -> Path:
    """Such a file: ``.ckpt`` as a whole training checkpoint, ``.safetensors`` as tensors alone.

    Args:
        vocabulary: rows of the table of tokens; a text is read only by a tower with all of CLIP's, :data:`ALL_TOKENS`.
    """
    from safetensors.torch import save_file

    state = original_state(version, seed, ema, vocabulary, **unet_options)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        optimizer = {
            "state": {0: {"step": 5, "exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}],
        }
        torch.save(
            {"state_dict": state, "global_step": 5, "epoch": 0, "optimizer_states": [optimizer], "callbacks": {}}, path
        )
    return path

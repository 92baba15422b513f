"""What else a file may hold than a Stable Diffusion 1 or 2: told by its names, and said with what to do. Source: own."""

from collections.abc import Callable, Collection

Names = Collection[str]

_BASE = "give the file of a whole Stable Diffusion 1 or 2"


def _any(*parts: str) -> Callable[[Names], list[str]]:
    return lambda names: [name for name in names if any(part in name for part in parts)]


#: What gives a file away -> what it is, and what to do.
OTHERS: tuple[tuple[Callable[[Names], list[str]], str], ...] = (
    (
        _any("lora_up.", "lora_down.", "lora_A.", "lora_B.", ".lora.", "lora_linear_layer.", ".hada_w", ".lokr_w"),
        "a LoRA, changes to another model's weights: fuse it into its base model and give that",
    ),
    (
        lambda names: [one for one in names if one in ("string_to_param", "string_to_token", "emb_params")],
        f"a textual inversion, embeddings of a few new tokens: {_BASE}",
    ),
    (
        _any("control_model.", "controlnet_", "input_hint_block.", "zero_convs."),
        f"a ControlNet, which steers another model: {_BASE}",
    ),
    (_any("ip_adapter.", "image_proj."), f"an image adapter of another model: {_BASE}"),
    (
        _any("conditioner.embedders.", "add_embedding.", "label_emb."),
        f"Stable Diffusion XL or another model with more inputs than a text: {_BASE}",
    ),
    (
        _any("joint_blocks.", "double_blocks.", "single_transformer_blocks.", "add_k_proj.", "single_blocks."),
        f"Stable Diffusion 3, Flux or their kin, which have no U-Net: {_BASE}",
    ),
    (
        lambda names: [one for one in names if one.startswith(("model.unet.", "model.text_encoder."))],
        "a checkpoint of a run of this suite: write it as a model with `lightning export --ckpt` and give that",
    ),
)


def other_kind(names: Names) -> str | None:
    """What kind of file it is and what to do, with its first names; None where nothing gives it away.

    Example:
        >>> str(other_kind(["joint_blocks.0.x"])).partition(",")[0]
        'Stable Diffusion 3'
    """
    for found, what in OTHERS:
        some = found(names)
        if some:
            return f"{what} ({len(some)} of its {len(names)} names: {', '.join(some[:3])})"
    return None

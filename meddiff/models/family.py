"""What belongs to the Stable Diffusion family, and what has another network or needs code of its own: told from the small
files of a folder, before any weights are read. Source: own; the names are diffusers'.
"""

from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.models.weights.sources import Config, read_config

MODEL_INDEX = "model_index.json"
#: Parts that a pipeline of the family may list; the last two look at finished pictures and are not read.
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler", "safety_checker", "feature_extractor")
#: Folders that belong to other families -> what they make of it.
OTHER_FOLDERS = {
    "transformer": "a transformer denoises there",
    "text_encoder_2": "SDXL and its kin join two text encoders",
    "prior": "an image prior stands before it",
    "vqvae": "its autoencoder is a VQ-VAE",
}
#: What is not known of a pipeline is taken for one of the family where its parts are.
KNOWN_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline")


def check_folder(folder: Path) -> list[str]:
    """Refuse a folder of another family by ``model_index.json`` and the names of its folders.

    Returns:
        sentences about what is unusual and was accepted.

    Raises:
        UserError: it has parts that the family does not have.
    """
    there = [name for name in OTHER_FOLDERS if (folder / name).is_dir()]
    kind, notes = "", []
    if (folder / MODEL_INDEX).is_file():
        index = read_config(folder, MODEL_INDEX)
        kind = str(index.get("_class_name", ""))
        listed = [name for name, value in index.items() if isinstance(value, list) and any(value)]
        there += [name for name in listed if name not in (*PARTS, *there)]
    if there:
        why = f" ({OTHER_FOLDERS[there[0]]})" if there[0] in OTHER_FOLDERS else ""
        raise UserError(
            f"{folder} is {'a ' + kind if kind else 'a pipeline'} with {', '.join(there)}{why}: only pipelines of one U-Net "
            f"with cross-attention, one text encoder and one autoencoder can be evaluated."
        )
    if kind and kind not in KNOWN_PIPELINES:
        notes.append(
            f"{folder} calls itself {kind}; its parts are those of a StableDiffusionPipeline and are read as such."
        )
    return notes


def check_unet(config: Config, where: str) -> None:
    """Refuse a U-Net that takes anything but noisy latents, a timestep and text.

    Raises:
        UserError: one sentence that names what was found.
    """
    kind = config.get("_class_name", "UNet2DConditionModel")
    blocks = [*_names(config.get("down_block_types")), *_names(config.get("up_block_types"))]
    blocks += _names(config.get("mid_block_type", "UNetMidBlock2DCrossAttn"))
    crossed = any("CrossAttn" in block for block in blocks) or not config.get("down_block_types")
    inputs, outputs = config.get("in_channels", 4), config.get("out_channels", 4)
    extra = {9: "an inpainting model's", 8: "an instruction or upscaling model's", 5: "a depth model's"}
    found = ""
    if kind != "UNet2DConditionModel":
        found = f"a {kind}"
    elif not crossed:
        found = "a U-Net without cross-attention, so no word points anywhere"
    elif config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        found = "a class-conditioned U-Net"
    elif config.get("addition_embed_type") is not None:
        found = f"a U-Net with added conditions ({config['addition_embed_type']}), as SDXL's"
    elif config.get("encoder_hid_dim_type") not in (None, "text_proj"):
        found = f"a U-Net that is conditioned on {config['encoder_hid_dim_type']}"
    elif inputs in extra and inputs != outputs:
        found = f"{extra[inputs]} U-Net ({inputs} input channels)"
    elif inputs != outputs:
        found = f"a U-Net of {inputs} input and {outputs} output channels"
    if found:
        raise UserError(
            f"{where} holds {found}: only U-Nets of noisy latents, a timestep and text can be evaluated, such as Stable "
            f"Diffusion's."
        )


def check_vae(config: Config, where: str) -> None:
    """Refuse an autoencoder whose latents are shifted before they meet the U-Net: only their scale is applied here.

    Raises:
        UserError: it has a shift.
    """
    shift = config.get("shift_factor")
    if shift not in (None, 0):
        raise UserError(
            f"{where}: the autoencoder has shift_factor {shift}, which Stable Diffusion's have not: the model that goes with "
            f"it is of another family."
        )


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)] if value else []

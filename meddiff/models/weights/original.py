"""A single file of Stable Diffusion 1 or 2, as CompVis, Stability and their forks write it, taken apart.

``model.diffusion_model.*`` is the U-Net, ``first_stage_model.*`` the autoencoder, ``cond_stage_model.transformer.*`` (1.x) or
``cond_stage_model.model.*`` (2.x) the text tower, ``model_ema.*`` averages of the U-Net. Files with one part alone leave out
the beginning. What network a part is, its tensors tell; nothing is fetched. Source: own.
"""

import json
import math
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from meddiff.common.errors import UserError
from meddiff.models.weights.fitting import first_three, matches
from meddiff.models.weights.foreign import other_kind
from meddiff.models.weights.original_text import (
    CLIP_SPARE,
    SPARE,
    tell_clip,
    tell_open_clip,
    text_from_open_clip,
    with_text_model,
)
from meddiff.models.weights.original_unet import shadow_name, tell_unet, unet_from_original
from meddiff.models.weights.original_vae import SPARE as VAE_SPARE
from meddiff.models.weights.original_vae import tell_vae, vae_from_original
from meddiff.models.weights.reading import State, read_metadata, read_state
from meddiff.models.weights.sources import Config, Part

#: Under what key of a safetensors file's metadata a file of this suite says what its parts are (JSON: part -> config).
METADATA = "meddiff"
Form = Literal["unet", "vae", "clip", "open_clip"]
#: Part -> (beginning of its names, form, a name that gives it away). A file with a U-Net or autoencoder alone has no
#: beginning; a tower alone could be any CLIP's, of which the tensors do not say enough.
FORMS: dict[Part, tuple[tuple[str, Form, str], ...]] = {
    "unet": tuple(
        (prefix, "unet", "input_blocks.0.0.weight") for prefix in ("model.diffusion_model.", "diffusion_model.", "")
    ),
    "vae": tuple((prefix, "vae", "encoder.mid.block_1.conv1.weight") for prefix in ("first_stage_model.", "")),
    "text_encoder": (
        *(
            ("cond_stage_model.transformer.", "clip", name)
            for name in ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
        ),
        ("cond_stage_model.model.", "open_clip", "token_embedding.weight"),
    ),
}
#: Names that belong to a folder with a config.json, and open_clip's of a tower or a whole CLIP.
OF_A_FOLDER = re.compile(r"((encoder|decoder)\.)?mid_block\.resnets\.|(text_model\.)?embeddings\.\w+_embedding")
OF_OPEN_CLIP = ("text.positional_embedding", "positional_embedding")
TITLES: dict[Part, str] = {"unet": "U-Net", "vae": "autoencoder", "text_encoder": "text tower"}
ARTICLES: dict[Part, str] = {"unet": "a", "vae": "an", "text_encoder": "a"}
#: Beginnings of the parts in a whole file.
WHOLE = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
#: Buffers of the training code, which others compute from the schedule; and what no part of the model is.
NO_PART = (
    "betas",
    "alphas_cumprod*",
    "sqrt_*alphas_cumprod",
    "sqrt_recip*_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "posterior_*",
    "lvlb_weights",
    "logvar",
    "scale_factor",
    "model_ema.*",
    "cond_stage_model.logit_scale",
    "cond_stage_model.text_projection",
)
#: What lies inside a part and is left out: behind the last block that runs, older buffers, a training's loss.
INSIDE: dict[Form, tuple[str, ...]] = {"unet": (), "vae": VAE_SPARE, "clip": CLIP_SPARE, "open_clip": SPARE}


def part_in_file(path: Path, part: Part, ema: bool) -> tuple[Config, Callable[[bool], State]]:
    """What network a file's part is, and how its tensors are read (True: names, shapes and types alone).

    Args:
        ema: the averages of the U-Net in the place of its raw weights.

    Returns:
        config and tensors under diffusers' or transformers' names; tensors that are no part's keep theirs, and are refused
        where the network is filled.

    Raises:
        UserError: damaged, no such part in it, something else than a Stable Diffusion 1 or 2, or no averages.
    """
    where = f"{part}: {path}"
    header = read_state(path, meta=True)
    kind = other_kind(header)
    if kind is not None:
        raise UserError(f"{where} is {kind}.")
    prefix, form = _form_of(header, part, where)
    _tell_unused(header, path)
    inside = {name.removeprefix(prefix): name for name in header if name.startswith(prefix)}
    if not prefix:
        inside = {name: name for name in header if not matches(name, NO_PART)}
    inside = {
        name: place for name, place in inside.items() if not matches(name, INSIDE[form]) or name == "text_projection"
    }
    if ema:
        inside = _averages(inside, header, part, where)
    told = _told_by_file(path).get(part)
    config = told or _tell(form, {name: header[place] for name, place in inside.items()}, where)
    if part == "vae" and not told:
        config |= _scaling(path, header, where)

    def read(meta: bool) -> State:
        stored = header if meta else read_state(path, names=set(inside.values()))
        return _converted(form, {name: stored[place] for name, place in inside.items()}, config)

    return config, read


def _form_of(header: Mapping[str, Tensor], part: Part, where: str) -> tuple[str, Form]:
    """Beginning and form of a part's names.

    Raises:
        UserError: the file has no such part.
    """
    found = _found(header, part)
    if found is not None:
        return found
    if any(OF_A_FOLDER.match(name) for name in header):
        raise UserError(
            f"{where} has the names of a diffusers or transformers folder, and no config.json of the same part lies beside "
            f"it under its usual name: give the whole folder."
        )
    if part == "text_encoder" and any(name in header for name in OF_OPEN_CLIP):
        raise UserError(f"{where} is open_clip's: say which one it is with {{arch: ViT-H-14, checkpoint: FILE}}.")
    others = [f"{ARTICLES[other]} {TITLES[other]}" for other in FORMS if _found(header, other) is not None]
    holds = f"but {' and '.join(others)}" if others else "of Stable Diffusion 1 or 2"
    first = "".join(FORMS[part][0][::2])
    raise UserError(
        f"{where} holds no {TITLES[part]} {holds} (no {first} among its {len(header)} tensors: {first_three(sorted(header))}): "
        f"give a file or folder with the {TITLES[part]} in it."
    )


def _found(header: Mapping[str, Tensor], part: Part) -> tuple[str, Form] | None:
    """By the name that gives a part away; in half a file, by a beginning that no other part has."""
    for prefix, form, name in FORMS[part]:
        if f"{prefix}{name}" in header:
            return prefix, form
    for prefix, form, _ in FORMS[part]:
        if prefix.startswith(WHOLE) and any(name.startswith(prefix) for name in header):
            return prefix, form
    return None


def _tell(form: Form, state: Mapping[str, Tensor], where: str) -> Config:
    if form == "unet":
        return tell_unet(state, where)
    if form == "vae":
        return tell_vae(state, where)
    if form == "clip":
        return tell_clip(with_text_model(state), where)
    return tell_open_clip(state, where)


def _converted(form: Form, state: Mapping[str, Tensor], config: Config) -> State:
    if form == "unet":
        return unet_from_original(state, config)
    if form == "vae":
        return vae_from_original(state, config)
    if form == "clip":
        return with_text_model(state)
    plain = {name: value for name, value in state.items() if name != "text_projection"}
    return text_from_open_clip(plain, config["num_hidden_layers"])


def _averages(inside: dict[str, str], header: Mapping[str, Tensor], part: Part, where: str) -> dict[str, str]:
    """The places of the averages of a U-Net's tensors."""
    if part != "unet":
        raise UserError(f"{where}: averages (ema) are kept of the U-Net alone: leave ema out for {part}.")
    shadows = {name: shadow_name(place) for name, place in inside.items()}
    missing = [name for name in shadows.values() if name not in header]
    if missing:
        raise UserError(
            f"{where} has no averages (ema): {len(missing)} of {len(shadows)} tensors are missing ({first_three(missing)}): "
            f"leave ema out, or fetch the file with them."
        )
    return shadows


def _told_by_file(path: Path) -> dict[str, Config]:
    """Part -> config, where the file itself says it."""
    text = read_metadata(path).get(METADATA)
    if text is None:
        return {}
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not all(isinstance(one, dict) for one in told.values()):
        raise UserError(f"{path}: what its metadata say under {METADATA!r} is damaged: write the file again.")
    return told


def _scaling(path: Path, header: Mapping[str, Tensor], where: str) -> Config:
    """The scaling factor, where a training measured it and kept it as a tensor of its own."""
    if "scale_factor" not in header or header["scale_factor"].numel() != 1:
        return {}
    factor = float(read_state(path, names={"scale_factor"})["scale_factor"])
    if not math.isfinite(factor) or factor <= 0:
        raise UserError(f"{where} says scale_factor {factor}; it must be a finite number above 0: fetch it again.")
    return {"scaling_factor": factor}


def _tell_unused(header: Mapping[str, Tensor], path: Path) -> None:
    """Say which tensors belong to no part."""
    forms = [form for some in FORMS.values() for form in some]
    if any(f"{prefix}{name}" in header for prefix, _, name in forms if not prefix):
        return  # one part alone: what is not its own is refused where it is filled
    prefixes = tuple({prefix for prefix, _, _ in forms if prefix})
    unused = [name for name in header if not name.startswith(prefixes) and not matches(name, NO_PART)]
    if unused:
        warnings.warn(
            f"{path}: {len(unused)} of {len(header)} tensors belong to no part and are left out ({first_three(unused)}).",
            UserWarning,
            stacklevel=3,
        )

"""One part of a model as it is stored, whatever the format: what network it is, and its tensors under that network's names.

Source: own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.models.weights.original import part_in_file
from meddiff.models.weights.original_vae import linear_attention, new_attention
from meddiff.models.weights.reading import State, read_state
from meddiff.models.weights.sources import (
    Config,
    Part,
    Source,
    fetched,
    find_part,
    missing_part,
    read_config,
    single_file,
    stored_place,
    weights_file,
)

#: What a source may tell of a U-Net or autoencoder beyond what lies there; a text tower's are the tower's own.
TOLD: dict[Part, tuple[str, ...]] = {
    "unet": (
        "attention_head_dim",
        "num_attention_heads",
        "norm_num_groups",
        "sample_size",
        "encoder_hid_dim",
        "upcast_attention",
    ),
    "vae": ("scaling_factor", "norm_num_groups", "sample_size", "force_upcast"),
}


@dataclass(frozen=True)
class StoredPart:
    """A U-Net, autoencoder or text tower that lies somewhere.

    Attributes:
        where: part and file, what a sentence about it begins with.
        config: as diffusers (U-Net, autoencoder) or transformers (text tower) write it.
        read: tensors under diffusers' or transformers' names; with True only names, shapes and types, on "meta". Values lie
            in the file until they are used.
        folder: where a tokenizer or a scheduler may lie beside it; None for a single file.
        drawn: names (``*`` stands for anything) of what the source asks for beyond the stored network: may be missing.
    """

    where: str
    config: Config
    read: Callable[[bool], State]
    folder: Path | None
    drawn: tuple[str, ...] = ()


def stored_part(source: Source, part: Part) -> StoredPart:
    """Find a part; its tensors are read when they are asked for.

    Raises:
        UserError: nothing is there, or no part of that kind.
    """
    place = stored_place(source, part)
    if place is None:
        raise UserError(f"{part}: {source} names no folder or file to read weights from.")
    wrong = [name for name in place.overrides if part in TOLD and name not in TOLD[part]]
    if wrong:
        raise UserError(
            f"{part}: {', '.join(wrong)} cannot be told beside a checkpoint; only {', '.join(TOLD[part])} can, the rest its "
            f"tensors say."
        )
    root = fetched(place.path, part)
    problem = missing_part(str(root), part)
    if problem:
        raise UserError(problem)
    if single_file(root):
        folder, file = None, root
        config, read = part_in_file(root, part, place.ema)
    else:
        folder = find_part(str(root), part)
        file = weights_file(folder)
        config = read_config(folder)
        if place.ema:
            raise UserError(f"{part}: {folder} is a folder, which holds no averages (ema): leave ema out.")
        read = _present_names(file, part)
    drawn: tuple[str, ...] = ()
    overrides = dict(place.overrides)
    if part == "unet" and overrides.get("encoder_hid_dim") is not None and config.get("encoder_hid_dim") is None:
        overrides["encoder_hid_dim_type"] = "text_proj"
        drawn = ("encoder_hid_proj.*",)
    return StoredPart(f"{part}: {file}", {**config, **overrides}, read, folder, drawn)


def _present_names(file: Path, part: Part) -> Callable[[bool], State]:
    """Tensors of a folder under the names that the library uses today."""

    def read(meta: bool) -> State:
        state = read_state(file, meta)
        return state if part == "text_encoder" else linear_attention(new_attention(state))

    return read


def part_config(source: Source, part: Part) -> Config:
    """The config of a part without its weights (of a dict of arguments, itself).

    Raises:
        UserError: nothing is there, or no part of that kind.
    """
    if isinstance(source, dict) and stored_place(source, part) is None:
        return source
    return stored_part(source, part).config

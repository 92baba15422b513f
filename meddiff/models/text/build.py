"""A text tower from its source: which kind it is, is told by what lies there. Source: own."""

import torch

from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH, END_ID
from meddiff.models.text.clip_tower import ClipTower
from meddiff.models.text.no_text import NoText
from meddiff.models.text.tokenizer_files import StoredTokenizer, read_tokenizer, tokenizer_folder
from meddiff.models.text.tower import TextTower
from meddiff.models.text.transformers_tower import TransformersTower
from meddiff.models.weights.fitting import PREFIXES, fit_state
from meddiff.models.weights.original_text import text_from_open_clip, text_to_open_clip
from meddiff.models.weights.reading import State, read_state
from meddiff.models.weights.sources import Config, Source
from meddiff.models.weights.stored import StoredPart, stored_part
from meddiff.models.weights.token_rows import ROW_IDS, expand_rows

#: What else an open_clip checkpoint holds: its image tower, and what stands behind the last block that runs here.
OPEN_CLIP_SPARE = ("visual.*", "logit_scale", "logit_bias", "text_projection", "text_projection.*", "attn_mask")
#: What else a transformers file of CLIP may hold: positions as buffers of older versions, the projection behind the tower,
#: and the other tower of a whole CLIP.
CLIP_SPARE = (
    "embeddings.position_ids",
    "text_projection.weight",
    "visual_projection.weight",
    "vision_model.*",
    "logit_scale",
)
#: What else the file of an encoder may hold: heads of its own training, a pooler, a decoder, buffers of older versions.
ENCODER_SPARE = (
    "pooler.*",
    "cls.*",
    "cls_projection_head.*",
    "lm_head.*",
    "classifier.*",
    "generator_*",
    "discriminator_*",
    "decoder.*",
    "*.position_ids",
    "*.token_type_ids",
)
#: Names of a CLIPTextModel's config without which there is no tower.
CLIP_CONFIG = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
#: What a source may say of a stored tower beside where it lies.
OPTIONS = ("max_length", "pad_id", "mask_padding", "attention_mask")


def build_text_encoder(source: Source) -> TextTower:
    """Build the tower and load its weights.

    Args:
        source: a folder, file or hub id with a ``CLIPTextModel`` (its last hidden state is the tower's output, the
            penultimate block of Stable Diffusion 2 being baked in) or any encoder of transformers with its tokenizer;
            or a dict:
            ``{checkpoint: FOLDER, max_length: 128, attention_mask: true, ...}`` for the same with :data:`OPTIONS`,
            ``{arch: ViT-H-14, checkpoint: FILE}`` for an open_clip checkpoint, and for random weights the arguments of
            :class:`ClipTower` or of :class:`TransformersTower`.

    Raises:
        UserError: unknown architecture, missing file, or weights that do not fit.
    """
    return _build(source)


def misfit(source: Source) -> str | None:
    """One sentence when local weights do not fit their architecture, by names, shapes and types; reads no values."""
    if isinstance(source, dict) and "checkpoint" not in source:
        return None
    try:
        tower_skeleton(source)
    except UserError as error:
        return str(error)
    return None


def tower_skeleton(source: Source) -> TextTower:
    """The tower of a source on torch's meta device: shapes without numbers.

    Raises:
        UserError: as :func:`build_text_encoder`.
    """
    with torch.device("meta"):
        return _build(source, meta=True)


def _build(source: Source, meta: bool = False) -> TextTower:
    if isinstance(source, dict):
        if "arch" in source:
            return _from_open_clip(source, meta)
        if "no_text" in source:
            return NoText(**source)
        if "checkpoint" not in source:
            return _drawn(source)
    options = {name: source[name] for name in OPTIONS if name in source} if isinstance(source, dict) else {}
    where = (
        {name: value for name, value in source.items() if name not in OPTIONS} if isinstance(source, dict) else source
    )
    part = stored_part(where, "text_encoder")
    return _from_clip(part, options, meta) if _is_clip(part.config) else _from_transformers(part, options, meta)


def _is_clip(config: Config) -> bool:
    names = (*config.get("architectures", ()), config.get("model_type", ""))
    return any(str(name).lower().startswith("clip") for name in names) or not config.get("model_type")


def _drawn(source: Config) -> TextTower:
    kind = TransformersTower if "transformers" in source else ClipTower
    try:
        return kind(**source)
    except TypeError as error:
        raise UserError(
            f"text_encoder: {error}; it takes width, heads, layers, act, vocab_size, embedding_std, position_std, max_length, "
            f"pad_id and attention_mask, or checkpoint and {', '.join(OPTIONS)}."
        ) from error


def _from_open_clip(source: Config, meta: bool) -> TextTower:
    import open_clip

    given = dict(source)
    arch, checkpoint = str(given.pop("arch")), given.pop("checkpoint", None)
    config = open_clip.get_model_config(arch)
    if config is None:
        raise UserError(f"text_encoder: open_clip knows no architecture {arch!r}; see open_clip.list_models().")
    text: Config = config["text_cfg"]
    if "hf_model_name" in text:
        raise UserError(f"text_encoder: {arch!r} has a Hugging Face text tower, not open_clip's own.")
    path = locate(checkpoint) if checkpoint is not None else None
    if path is not None and not path.is_file():
        raise UserError(f"text_encoder: no open_clip checkpoint at {checkpoint}: download it, or drop `checkpoint`.")
    layers = text["layers"] - 1  # the penultimate block is the last one that runs
    tower = _drawn(
        {
            "width": text["width"],
            "heads": text["heads"],
            "layers": layers,
            "act": "quick_gelu" if config.get("quick_gelu") else "gelu",
            "vocab_size": text["vocab_size"],
            "max_length": text["context_length"],
            **given,
        }
    )
    if path is not None:
        spare = (*OPEN_CLIP_SPARE, f"transformer.resblocks.{layers}.*")
        where, prefixes = f"text_encoder: {path}", (*PREFIXES, "text.")
        state = fit_state(tower.state_dict(), read_state(path, meta), where, spare, prefixes=prefixes)
        if not meta:
            tower.load_state_dict(state)
    return tower


def _from_clip(part: StoredPart, options: Config, meta: bool) -> TextTower:
    config = part.config.get("text_config", part.config)
    lacking = [name for name in CLIP_CONFIG if not isinstance(config.get(name), int)]
    if lacking:
        raise UserError(f"{part.where}: its config has no {', '.join(lacking)}: give a CLIPTextModel's folder.")
    folder = tokenizer_folder(part.folder) if part.folder is not None else None
    told = read_tokenizer(folder) if folder is not None else StoredTokenizer(None, None, None)
    act, places = config.get("hidden_act", "quick_gelu"), config.get("max_position_embeddings", CONTEXT_LENGTH)
    drawn = config.get("token_rows")
    spread = drawn.get("std") if isinstance(drawn, dict) else None
    pads = (told.pad_id, _clip_pad(config, act) if told.serialized is None else config.get("pad_token_id"))
    tower = ClipTower(
        config["hidden_size"],
        config["num_attention_heads"],
        config["num_hidden_layers"],
        act,
        config["vocab_size"],
        max_length=places,
        pad_id=options.get("pad_id", next((pad for pad in pads if pad is not None), 0)),
        tokenizer=told.serialized,
        attention_mask=options.get("attention_mask", bool(config.get("unet_attention_mask", False))),
        # whoever writes this tower again says how the rows are drawn that no file holds
        **({"embedding_std": spread} if isinstance(spread, float) else {}),
    )
    if options.get("max_length", places) != places:
        raise UserError(f"text_encoder: max_length is {options['max_length']}; this CLIP tower takes {places} tokens.")
    stored = part.read(meta)
    state = expand_rows(stored, config, part.where)
    if ROW_IDS in stored and not meta:
        tower.stored_rows = stored[ROW_IDS].long()
    layers = config["num_hidden_layers"]
    wanted = text_from_open_clip(tower.state_dict(), layers)
    fitting = fit_state(wanted, state, part.where, CLIP_SPARE, prefixes=(*PREFIXES, "text_model."))
    if not meta:
        tower.load_state_dict(text_to_open_clip(fitting, layers))
    return tower


def _clip_pad(config: Config, act: str) -> int:
    """transformers writes a padding id of 1 into CLIP's configs, which no Stable Diffusion pads with: told by the family."""
    pad = config.get("pad_token_id")
    return int(pad) if pad in (0, END_ID) else (END_ID if act == "quick_gelu" else 0)


def _from_transformers(part: StoredPart, options: Config, meta: bool) -> TextTower:
    config = dict(part.config)
    folder = tokenizer_folder(part.folder) if part.folder is not None else None
    if folder is None:
        raise UserError(f"{part.where}: no tokenizer lies with it: fetch its tokenizer.json or vocab.txt too.")
    told = read_tokenizer(folder)
    if told.serialized is None:
        raise UserError(
            f"{part.where}: its tokenizer is CLIP's, its tower a {config.get('model_type')}: fetch its own."
        )
    # a pipeline passes no mask unless it is told to; a tower by itself is used as it was trained
    piped = part.folder is not None and (part.folder.parent / "model_index.json").is_file()
    pads = (options.get("pad_id"), told.pad_id, config.get("pad_token_id"))
    length = options.get("max_length", told.max_length)
    pad = next((one for one in pads if one is not None), None)
    if length is None or pad is None:
        lacks = "max_length" if length is None else "pad_id"
        raise UserError(f"{part.where}: its tokenizer does not say its {lacks}: set text_encoder.{lacks}.")
    tower = TransformersTower(
        config,
        told.serialized,
        length,
        pad,
        options.get("mask_padding", bool(config.get("use_attention_mask", not piped))),
        options.get("attention_mask", bool(config.get("unet_attention_mask", False))),
    )
    network = tower.transformer
    twins, spare = tower.twins(), ENCODER_SPARE
    state = _today(part.read(meta))
    wanted = {name: value for name, value in network.state_dict().items() if name not in twins}
    prefixes = (*PREFIXES, f"{network.base_model_prefix}.") if network.base_model_prefix else PREFIXES
    renamed = {twins.get(name, name): value for name, value in reversed(state.items())}
    fitting = fit_state(wanted, renamed, part.where, spare, prefixes=prefixes)
    if not meta:
        network.load_state_dict({**fitting, **{twin: fitting[name] for twin, name in twins.items()}})
    return tower


def _today(state: State) -> State:
    """Names of files that were converted from TensorFlow."""
    return {
        name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): value
        for name, value in state.items()
    }

"""A published text-to-image model, from wherever it lies, as a :class:`LatentDiffusion`: nothing is trained, nothing assumed.

What the parts say counts: prediction type, betas and spacing of ``scheduler_config.json``, the scheduler's class for the
sampler, the autoencoder's own scale. What a single file cannot say is given or measured. Source: own; layouts are diffusers'.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.common.places import locate
from meddiff.models.family import MODEL_INDEX, check_folder, check_unet, check_vae
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import NoiseSchedule, PredictionType, ScheduleConfig
from meddiff.models.prediction_probe import contradiction, measured, noise_correlation
from meddiff.models.sampling import Sampler, SamplingOptions
from meddiff.models.schedule_config import ZERO_SNR
from meddiff.models.weights.schedule_file import CLASSES, read_schedule, schedule_file
from meddiff.models.weights.sources import HUB_PREFIX, Source, hub_place, read_config, single_file, stored_place
from meddiff.models.weights.stored import stored_part

#: diffusers' class -> this suite's name of the sampler.
SAMPLERS: dict[str, Sampler] = {name: cast(Sampler, sampler) for sampler, name in CLASSES.items()}
#: Where RoentGen-v2 keeps the text encoder that it trained; the one in text_encoder/ may be the untouched one.
TRAINED_TEXT_ENCODER = "text_encoder_and_tokenizer"
#: Stems of files that every model has.
NO_NAMES = ("model", "diffusion_pytorch_model", "pytorch_model")
#: Files of a hub's repository that are of use: neither half-precision doubles nor what looks at finished pictures.
WANTED = ("*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
UNWANTED = ("*.fp16.*", "*non_ema*", "safety_checker/*", "feature_extractor/*")


@dataclass(frozen=True)
class Pipeline:
    """Where the parts of a published model lie and what is said of them; of weights nothing has been read.

    Attributes:
        source: what was given.
        name: of its folder, repository or file.
        unet: source of the part; text_encoder, vae: as well (None: there is none).
        schedule: of training, as its scheduler says; None where nothing says it.
        sampler: by the scheduler's class.
        latent_shape: (C, h, w) of the U-Net's input.
        says_size: whether h and w are the model's own (a single file does not say them).
        notes: lines about what was chosen.
    """

    source: str
    name: str
    unet: Source
    text_encoder: Source
    vae: str | None
    schedule: ScheduleConfig | None
    sampler: Sampler
    latent_shape: tuple[int, int, int]
    says_size: bool
    notes: tuple[str, ...] = ()


def tell(line: str) -> None:
    """A line on stderr."""
    print(terminal(line), file=sys.stderr)


def load_pipeline(
    source: Source,
    vae: str | None = None,
    text_encoder: Source | None = None,
    prediction_type: PredictionType | None = None,
    seed: int = 0,
) -> LatentDiffusion:
    """A published model of the Stable Diffusion family, in eval mode on the CPU.

    Args:
        source: diffusers folder of a whole pipeline or of a U-Net, single file (.ckpt, .safetensors), or ``hub:ORG/NAME``;
            ``{checkpoint: ONE_OF_THESE, ema: true, sample_size: 96, ...}`` tells what a file does not say of its U-Net.
        vae: autoencoder, instead of the pipeline's own.
        text_encoder: likewise; ``{checkpoint: FOLDER, max_length: 128, ...}`` as of a training.
        prediction_type: what the U-Net predicts; None takes what the scheduler says, or else what the weights tell.
        seed: of what is drawn beside the stored weights, and of the noise that the weights are asked with.

    Raises:
        UserError: nothing there, a model of another family, or weights that do not fit.
    """
    return read_pipeline(find_pipeline(source, vae, text_encoder), prediction_type, seed)


def find_pipeline(source: Source, vae: str | None = None, text_encoder: Source | None = None) -> Pipeline:
    """Find the parts and check by their small files that they are of the family.

    Raises:
        UserError: a part is missing and not given, or it is a model of another family.
    """
    stored = stored_place(source, "unet")
    if stored is None:
        raise UserError(
            f"{source} names no model: give a folder, a file, hub:ORG/NAME, or a dict with such a checkpoint."
        )
    told, source = source, stored.path
    root = _fetched(source)
    if not root.exists():
        raise UserError(
            f"No model at {source}: give a diffusers folder, a .ckpt or .safetensors file, or hub:ORG/NAME."
        )
    alone = single_file(root)
    if alone:
        place = str(root)
        # what libraries and exports call every file says less than its folder
        name = root.resolve().parent.name if root.stem in NO_NAMES else root.stem
        found = Pipeline(source, name, place, text_encoder or place, vae or place, None, "ddim", (4, 64, 64), False)
    else:
        found = _of_folder(source, root if root.is_dir() else root.parent, vae, text_encoder)
    if isinstance(told, dict):
        name = found.name + ("-ema" if stored.ema else "")
        found = replace(found, unet={**told, "checkpoint": found.unet}, name=name)
    unet = stored_part(found.unet, "unet")
    check_unet(unet.config, unet.where)
    size = unet.config.get("sample_size")
    height, width = (size, size) if isinstance(size, int) else (size or (64, 64))
    channels = int(unet.config.get("in_channels", 4))
    if found.vae is not None:
        autoencoder = stored_part(found.vae, "vae")
        check_vae(autoencoder.config, autoencoder.where)
        latents = autoencoder.config.get("latent_channels", channels)
        if latents != channels:
            raise UserError(
                f"{found.vae}: its latents have {latents} channels and the U-Net of {source} takes {channels}: give the "
                f"autoencoder it was trained with as vae."
            )
    if stored_place(found.text_encoder, "text_encoder") is not None:
        stored_part(found.text_encoder, "text_encoder")
    says_size = size is not None and (not alone or "sample_size" in stored.overrides)
    return replace(found, latent_shape=(channels, int(height), int(width)), says_size=says_size)


def _fetched(source: str) -> Path:
    """Where a source lies on this machine; a file or the parts of a repository are downloaded first.

    Raises:
        UserError: the hub does not have it.
    """
    if not source.startswith(HUB_PREFIX):
        return locate(source)
    from huggingface_hub import hf_hub_download, snapshot_download

    repository, file, revision = hub_place(source)
    try:
        if file is not None:
            return Path(hf_hub_download(repository, file, revision=revision))
        wanted, unwanted = [*WANTED], [*UNWANTED]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted))
    except Exception as error:
        raise UserError(
            f"The hub has no usable {source.removeprefix(HUB_PREFIX)!r} ({type(error).__name__}): check the name and the "
            f"network, or give a local folder or file."
        ) from error


def _of_folder(source: str, root: Path, vae: str | None, text_encoder: Source | None) -> Pipeline:
    notes = check_folder(root)
    whole = (root / "unet" / "config.json").is_file()
    if not whole and not (root / "config.json").is_file():
        raise UserError(
            f"{source} holds no U-Net (neither unet/config.json nor config.json): give a folder in diffusers' layout, or a "
            f"single file."
        )
    if text_encoder is None:
        trained, plain = root / TRAINED_TEXT_ENCODER, root / "text_encoder"
        if trained.is_dir():
            text_encoder = str(trained)
            notes.append(
                f"{source}: the text encoder is that of {TRAINED_TEXT_ENCODER}/, the trained one, not text_encoder/."
            )
        elif plain.is_dir():
            text_encoder = str(root)
        else:
            raise UserError(
                f"{source} has no text_encoder/: give the text encoder it was trained with as text_encoder."
            )
    own = str(root) if (root / "vae").is_dir() else None
    file = schedule_file(str(root))
    config = None if file is None else read_config(file.parent, file.name)
    kind = "" if config is None else str(config.get("_class_name", ""))
    if config is not None and kind not in SAMPLERS:
        notes.append(
            f"{source}: its scheduler is {kind or 'of no class'}; images are drawn with ddim unless told otherwise."
        )
    name = hub_place(source)[0].rpartition("/")[2] if source.startswith(HUB_PREFIX) else root.resolve().name
    schedule = None if config is None else read_schedule(config, f"unet: {file}")
    sampler = SAMPLERS.get(kind, "ddim")
    if sampler == "pndm" and schedule is not None and schedule.get(ZERO_SNR):
        sampler = "ddim"
        notes.append(
            f"{source}: its schedule has zero terminal SNR, which pndm cannot start from; images are drawn with ddim."
        )
    return Pipeline(
        source, name, str(root), text_encoder, vae or own, schedule, sampler, (4, 64, 64), True, tuple(notes)
    )


def read_pipeline(
    pipeline: Pipeline,
    prediction_type: PredictionType | None = None,
    seed: int = 0,
    latent_size: tuple[int, int] | None = None,
    say: Callable[[str], None] = tell,
) -> LatentDiffusion:
    """Read the weights, and ask them what they predict where that is not said or to see whether it is right.

    Args:
        pipeline: from :func:`find_pipeline`.
        prediction_type: before what the scheduler says.
        seed: as of :func:`load_pipeline`.
        latent_size: (h, w) of the latents, where the model does not say it.
        say: takes the lines about what was chosen.

    Raises:
        UserError: weights that do not fit, or that do not tell what they predict.
    """
    for note in pipeline.notes:
        say(note)
    stored = pipeline.schedule
    said: PredictionType | None = None
    if stored is not None:
        said = "v_prediction" if stored["prediction_type"] == "v_prediction" else "epsilon"
    told = prediction_type or said
    if said not in (None, told):
        say(f"{pipeline.source}: prediction_type {prediction_type} as given; its scheduler says {said}.")
    sampling = SamplingOptions(sampler=pipeline.sampler)
    model = LatentDiffusion.build(
        pipeline.unet, pipeline.text_encoder, pipeline.vae, told or "epsilon", sampling, seed=seed
    ).eval()
    if not pipeline.says_size:
        model.unet.register_to_config(sample_size=list(latent_size or pipeline.latent_shape[1:]))
    correlation = noise_correlation(model, seed)
    if told is None:
        kind = measured(correlation, pipeline.source)
        say(
            f"{pipeline.source}: what its U-Net predicts is not said; measured: {kind} (correlation with the noise at the last "
            f"timestep {correlation:.2f}; epsilon gives about 1, v and untrained weights about 0)."
        )
        model.noise_schedule = NoiseSchedule(kind)
    elif (sentence := contradiction(correlation, told, pipeline.source)) is not None:
        warnings.warn(sentence, UserWarning, stacklevel=3)
    return model


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a pipeline or a U-Net in diffusers' layout (and no run folder)."""
    if (folder / "unet").is_dir() or (folder / MODEL_INDEX).is_file():
        return True
    return (folder / "config.json").is_file() and not (folder / "config.yaml").is_file()

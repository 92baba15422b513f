"""A published model with the shards it is measured on, as :class:`meddiff.runs.opened.Opened`. Nothing was trained here.

Source: own.
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from meddiff.common.errors import UserError
from meddiff.common.outside import file_in
from meddiff.common.places import locate
from meddiff.runs import names
from meddiff.runs.building import DATA, build
from meddiff.runs.checkpoints import is_own_checkpoint
from meddiff.runs.facts import Facts
from meddiff.runs.open_run import wanted_device
from meddiff.runs.opened import ShardsData
from meddiff.runs.shards_that_fit import refuse_other_shards

if TYPE_CHECKING:
    from meddiff.models.latent_diffusion import LatentDiffusion
    from meddiff.models.noise_schedule import PredictionType
    from meddiff.models.pipeline import Pipeline
    from meddiff.models.weights.sources import Part, Source


class OpenModel:
    """A published model; its weights are read when they are first asked for.

    Args:
        pipeline: where its parts are.
        shards: folder of the latent shards; None: it is only drawn with.
        prediction_type: what its U-Net predicts; None takes what is said or measured.
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(
        self,
        pipeline: "Pipeline",
        shards: str | None = None,
        prediction_type: "PredictionType | None" = None,
        device: str = "cpu",
    ) -> None:
        self.pipeline, self._shards = pipeline, shards
        self._prediction_type, self._device = prediction_type, device
        self.facts = Facts(None, self.file, {"name": pipeline.name})

    @property
    def file(self) -> Path:
        """The folder or file; of a repository its name."""
        return locate(self.pipeline.source)

    @property
    def images(self) -> int:
        """None that this suite knows of: the first point of every curve."""
        return 0

    @cached_property
    def model(self) -> "LatentDiffusion":
        """The model with the latent size of the shards where its own is not known.

        Raises:
            UserError: weights that do not fit.
        """
        from meddiff.models.pipeline import read_pipeline

        size = self.data.manifest.latent_shape[1:] if self._shards is not None else None
        model = read_pipeline(self.pipeline, self._prediction_type, latent_size=size)
        return model.to(wanted_device(self._device))

    @cached_property
    def data(self) -> ShardsData:
        """The data module over the shards.

        Raises:
            UserError: no shards, or shards of another autoencoder or resolution.
        """
        if self._shards is None:
            raise UserError(f"{self.pipeline.source} is a published model: give --shards DIR to evaluate it on.")
        data = cast(ShardsData, build("datamodules.LatentShardsDataModule", {"shards": self._shards}, DATA))
        pipeline = self.pipeline
        if pipeline.vae is None:
            raise UserError(
                f"{pipeline.source} has no autoencoder: give the one it was trained with as --vae, for the shards must be made "
                f"with it."
            )
        shape = pipeline.latent_shape if pipeline.says_size else None
        refuse_other_shards(data.manifest, self._shards, pipeline.vae, shape, pipeline.name)
        return data

    def before(self) -> None:
        """Not known."""
        return

    def untrained(self) -> "LatentDiffusion":
        """The same with a U-Net of random weights."""
        from meddiff.models.backbones import untrained_twin
        from meddiff.models.latent_diffusion import LatentDiffusion

        own = self.model
        twin = untrained_twin(own.unet)
        made = LatentDiffusion(twin, own.text_encoder, own.noise_schedule, own.autoencoder, own.sampling)
        return made.to(own.device).eval()

    def about(self) -> dict[str, object]:
        """Its source, and the sha256 of every file of weights that was read, as a hub's page shows them."""
        return {
            "run": self.pipeline.source,
            "checkpoint": self.file.name,
            "images": 0,
            "freeze_text_encoder": None,
            "published": True,
            "sha256": self.sums,
        }

    @cached_property
    def sums(self) -> dict[str, str]:
        """Part -> sha256 of its file of weights (of several: of their sums, in the order of their names)."""
        parts: dict[Part, Source | None] = {
            "unet": self.pipeline.unet,
            "text_encoder": self.pipeline.text_encoder,
            "vae": self.pipeline.vae,
        }
        read: dict[Path, str] = {}
        found: dict[str, str] = {}
        for part, source in parts.items():
            files = [] if source is None else weight_files(source, part)
            for file in files:
                if file not in read:
                    with file.open("rb") as stream:
                        read[file] = hashlib.file_digest(stream, "sha256").hexdigest()
            sums = [read[file] for file in files]
            if sums:
                found[part] = sums[0] if len(sums) == 1 else hashlib.sha256(" ".join(sums).encode()).hexdigest()
        return found

    def evaluation_folder(self) -> Path:
        """``evaluation/NAME``."""
        return file_in(names.EVALUATIONS, self.pipeline.name)

    @property
    def report_folder(self) -> None:
        """Its evaluation has a folder of its own."""
        return


def weight_files(source: "Source", part: "Part") -> list[Path]:
    """The files that a part's weights are read from; none where they are drawn or of an open_clip."""
    from meddiff.models.weights.reading import files_of
    from meddiff.models.weights.sources import fetched, find_part, single_file, stored_place, weights_file

    stored = stored_place(source, part)
    if stored is None:
        return []
    place = fetched(stored.path, part)
    return [place] if single_file(place) else sorted(files_of(weights_file(find_part(str(place), part))))


def open_model(
    source: "Source",
    shards: str | None = None,
    vae: str | None = None,
    text_encoder: "Source | None" = None,
    prediction_type: "PredictionType | None" = None,
    device: str = "cpu",
) -> OpenModel:
    """Find a published model's parts, check them and the shards; no weights are read but the autoencoder's, for its digest.

    Args:
        source: as of :func:`meddiff.models.pipeline.load_pipeline`.
        shards: folder to evaluate on.
        vae: autoencoder instead of its own.
        text_encoder: likewise.
        prediction_type: what it predicts; None takes what is said or measured.
        device: "auto", "cpu", "cuda", ...

    Raises:
        UserError: one sentence about what does not fit.
    """
    from meddiff.models.pipeline import find_pipeline, is_pipeline

    given = source.get("checkpoint") if isinstance(source, dict) else source
    place = locate(str(given))
    if place.is_file() and is_own_checkpoint(place):
        raise UserError(f"{place} is a checkpoint of this suite: give it as --ckpt.")
    if place.is_dir() and (place / names.CONFIG).is_file() and not is_pipeline(place):
        raise UserError(f"{place} is a run folder: give it as --run.")
    opened = OpenModel(find_pipeline(source, vae, text_encoder), shards, prediction_type, device)
    if shards is not None:
        _ = opened.data
    return opened

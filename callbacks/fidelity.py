"""How good are the images? Frechet and kernel distances of drawn images to real ones, during training."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from callbacks.evaluation import EvaluationCallback, ranks_of, run_folder
from callbacks.media import Media, save_samples
from meddiff.evaluation.fidelity import Fidelity, FidelityOptions
from meddiff.models.feature_extractors import missing_extractors
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import update_controls
from meddiff.shards.dataset import LatentShardsDataset


class FidelityCallback(EvaluationCallback):
    """Logs ``fidelity/fid_*`` or ``fd_*`` and ``kid_*``: drawn images against real ones, extractor by extractor.

    The controls (real against real, through the autoencoder, noise, an untrained network) are measured once, at step 0,
    into ``RUN/controls.json``. What is measured: :class:`meddiff.evaluation.fidelity.Fidelity`.

    Args:
        every_n_images: interval; also runs at step 0 and at the end.
        shown: images kept in ``RUN/media/samples`` and sent to W&B.
        arguments: the fields of :class:`meddiff.evaluation.fidelity.FidelityOptions`.
    """

    side = "fidelity"

    def __init__(self, every_n_images: int, shown: int = 8, **arguments: Any) -> None:
        self.options, self.shown = FidelityOptions(**arguments), shown
        super().__init__(every_n_images, self.options.split)
        self.measurement: Fidelity = Fidelity(self.options)

    @classmethod
    def preflight(cls, **init_args: Any) -> list[str]:
        """One sentence for each file of extractor weights that is not there; looks at the disk only."""
        return missing_extractors(init_args.get("weights") or {})

    def size_problem(self, have: int) -> str | None:
        """As the measurement says it."""
        return self.measurement.size_problem(have, f"The split {self.split!r}")

    def measure(
        self, trainer: Trainer, model: LatentDiffusion, split: LatentShardsDataset, images: int
    ) -> Mapping[str, float]:
        result = self.measurement.run(model, split, None, ranks_of(trainer), controls=images == 0)
        if trainer.is_global_zero:
            if result.controls:
                update_controls(run_folder(trainer), "fidelity", result.controls)
            sampler = self.options.ways(model)[0].sampler
            drawn = save_samples(trainer, images, split, result.images, sampler, self.shown)
            self.media = Media({"fidelity/samples": drawn})
        # controls have a file of their own; figures of another sampler have its name before them
        ways = {way.sampler for way in self.options.compare_with}
        figures = result.figures.items()
        return {f"fidelity/{k}": value for k, value in figures if "/" not in k or k.split("/")[0] in ways}

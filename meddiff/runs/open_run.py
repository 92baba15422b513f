"""One way back from a run: ``module, data, facts = open_run(RUN)``.

Classes are named by the run's ``config.yaml`` (or, for a checkpoint on its own, by the checkpoint), never guessed; what
they are built with is typed by their signatures, as the command line does it. Nothing here imports a Lightning room.
Source: own.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from meddiff.common.errors import UserError, refuse
from meddiff.common.foreign_files import instead_of_weights
from meddiff.common.outside import inside
from meddiff.runs import names
from meddiff.runs.building import DATA, MODULE, build
from meddiff.runs.checkpoints import Checkpoint, find_checkpoint, images_of, read_checkpoint
from meddiff.runs.config_file import read_config
from meddiff.runs.facts import Facts
from meddiff.runs.opened import ShardsData
from meddiff.runs.shards_that_fit import over_shards
from meddiff.runs.whereabouts import Whereabouts, found_again, place_of, read_whereabouts

if TYPE_CHECKING:
    from torch import nn

    from meddiff.models.latent_diffusion import LatentDiffusion


class OpenRun:
    """A run with its parts built when they are first asked for; unpacks to module, data, facts.

    Args:
        facts: what is known.
        checkpoint_file: the checkpoint that is meant.
        shards: evaluate on this folder of shards instead of the run's.
        overrides: hyperparameters of the module to replace, e.g. ``vae``, when the autoencoder has moved.
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(
        self,
        facts: Facts,
        checkpoint_file: Path,
        shards: str | None = None,
        overrides: Mapping[str, object] | None = None,
        device: str = "cpu",
    ) -> None:
        self.facts, self.checkpoint_file = facts, checkpoint_file
        self._shards, self._overrides, self._device = shards, dict(overrides or {}), device

    def __iter__(self) -> Iterator[object]:
        yield self.module
        yield self.data
        yield self.facts

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The content of the checkpoint.

        Raises:
            UserError: it is none.
        """
        if self.checkpoint_file.is_file():
            refuse([one for one in [instead_of_weights(self.checkpoint_file)] if one])
        return read_checkpoint(self.checkpoint_file)

    @property
    def images(self) -> int:
        """Images the model has seen."""
        return images_of(self.checkpoint)

    @cached_property
    def module(self) -> "nn.Module":
        """The trained module in eval mode, with its EMA if it kept one; needs no weights it started from.

        Raises:
            UserError: the checkpoint does not say what it is, or does not fit.
        """
        path = self.facts.section("model")[0] or self.checkpoint.get("class_path")
        if path is None:
            raise UserError(
                f"{self.checkpoint_file} does not say of which class it is: give the run folder it was made in."
            )
        arguments = {**self.checkpoint["hyper_parameters"], **self.checkpoint.get("architecture", {})}
        module = self._built(str(path), {**self._placed(arguments), **self._overrides})
        checkpoint = dict(self.checkpoint)  # the hook may rename what an older version wrote
        try:
            module.on_load_checkpoint(checkpoint)
            module.load_state_dict(checkpoint["state_dict"])
        except UserError as error:
            raise UserError(f"{self.checkpoint_file}: {error}") from error
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{self.checkpoint_file} does not fit {path}: {reason}") from error
        return cast("nn.Module", module.to(wanted_device(self._device)).eval())

    @property
    def file(self) -> Path:
        """The checkpoint that is meant."""
        return self.checkpoint_file

    @property
    def model(self) -> "LatentDiffusion":
        """The trained model of the module.

        Raises:
            UserError: as :attr:`module`, or the module holds none.
        """
        from meddiff.models.latent_diffusion import model_of

        return model_of(self.module)

    def before(self) -> "LatentDiffusion":
        """The model before it was trained; errors as of :meth:`start`."""
        from meddiff.models.latent_diffusion import model_of

        return model_of(self.start())

    def untrained(self) -> "LatentDiffusion":
        """The model before it was trained, with a U-Net of random weights; errors as of :meth:`start`."""
        from meddiff.models.latent_diffusion import model_of

        plain = {name: value for name, value in dict(self.model.unet.config).items() if not name.startswith("_")}
        return model_of(self.start(unet=plain))

    def about(self) -> dict[str, object]:
        """What ``evaluation.json`` says of the model beside its name, seed and cohort."""
        return {
            "run": str(self.facts.run or self.checkpoint_file),
            "checkpoint": self.checkpoint_file.name,
            "images": self.images,
            "freeze_text_encoder": self.model.freeze_text_encoder,
        }

    def evaluation_folder(self) -> Path:
        """``RUN/evaluation/<images>`` of a run; ``evaluation/<checkpoint>`` of a checkpoint without one."""
        if self.facts.run is None:
            return Path(names.EVALUATIONS) / self.checkpoint_file.stem
        return inside(self.facts.run, f"{names.EVALUATIONS}/{names.by_images(self.images)}")

    @property
    def report_folder(self) -> Path | None:
        """Where ``lightning report`` finds controls of these measurements; not of other shards than the run's."""
        return self.facts.run if self._shards is None else None

    def start(self, **overrides: object) -> "nn.Module":
        """The module before it was trained, from the sources its configuration names.

        Args:
            overrides: arguments to replace.

        Raises:
            UserError: a checkpoint without a run folder, or the sources are gone.
        """
        path, arguments = self.facts.section("model")
        if path is None:
            raise UserError(f"{self.checkpoint_file} lies in no run folder: what it started from is not known.")
        module = self._built(path, {**self._placed(arguments), **self._overrides, **overrides})
        return cast("nn.Module", module.to(wanted_device(self._device)).eval())

    @cached_property
    def data(self) -> ShardsData:
        """The run's data module with all of its arguments, or one of the same class over other shards.

        Raises:
            UserError: no cohort to evaluate on.
        """
        path, arguments = self.facts.section("data")
        if self._shards is not None:
            path, arguments = over_shards(self._shards, arguments)
        if path is None:
            raise UserError(
                f"{self.checkpoint_file} lies in no run folder with a {names.CONFIG}: give --shards DIR to evaluate on."
            )
        placed = self._placed(arguments)
        data = build(path, arguments, DATA)
        made = getattr(data, "folder", None)  # of a cohort that is made on first use: not anew where it is elsewhere
        if arguments.get("shards") is None and isinstance(made, str):
            placed["shards"] = place_of(made, self._known, self.facts.run, "data")
        data = build(path, placed, DATA) if placed != arguments else data
        if not hasattr(data, "dataset"):
            raise UserError(f"{path} of this run has no latent shards to evaluate on: give --shards DIR.")
        found = cast(ShardsData, data)
        if self._shards is None:
            found.prepare_data()  # phantoms are made at first use
        return found

    @cached_property
    def _known(self) -> Whereabouts:
        noted = self.facts.run is not None and (self.facts.run / names.WHEREABOUTS).is_file()
        return read_whereabouts(self.facts.run, None if noted else self.checkpoint)

    def _placed(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """The arguments with files and folders where they lie now; those that are replaced are not looked for."""
        kept = {name: value for name, value in arguments.items() if name not in self._overrides}
        return {**arguments, **found_again(kept, self._known, self.facts.run)}

    def _built(self, path: str, arguments: Mapping[str, object]) -> "_Module":
        module = cast(_Module, build(path, arguments, MODULE))
        module.configure_model()
        return module


class _Module(Protocol):
    """What is asked of a run's Lightning module."""

    def configure_model(self) -> None: ...
    def on_load_checkpoint(self, checkpoint: Checkpoint) -> None: ...
    def load_state_dict(self, state_dict: Mapping[str, object]) -> object: ...
    def to(self, device: str) -> "_Module": ...
    def eval(self) -> "_Module": ...


def wanted_device(device: str) -> str:
    """ "auto" is the GPU where there is one."""
    import torch

    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def newest_run(folder: Path) -> Path:
    """``folder`` if it is a run folder, else the newest run folder in it (RUNS/NAME holds one for each start).

    Example:
        >>> newest_run(Path("nowhere")).as_posix()
        'nowhere'
    """
    if folder.is_dir() and not (folder / names.CONFIG).is_file():
        runs = sorted(file.parent for file in folder.glob(f"*/{names.CONFIG}"))
        return runs[-1] if runs else folder
    return folder


def open_run(
    run: str | Path | None,
    ckpt: str | Path | None = None,
    shards: str | None = None,
    device: str = "cpu",
    **overrides: object,
) -> OpenRun:
    """Find a run's newest checkpoint (or take ``ckpt``), its configuration and its cohort; nothing is built yet.

    Args:
        run: run folder, RUNS/NAME/TIME, or RUNS/NAME for its newest run.
        ckpt: checkpoint file; in a run folder its configuration is found.
        shards: evaluate on this folder of shards instead.
        device: "auto", "cpu", "cuda", ...
        overrides: hyperparameters to replace, e.g. ``vae=FOLDER`` when the autoencoder has moved.

    Raises:
        UserError: neither or both given, or nothing there.

    Example::

        module, data, facts = open_run("runs/quickstart")
    """
    if (run is None) == (ckpt is None):
        raise UserError("Give either --run RUN (its newest checkpoint) or --ckpt FILE.")
    given = Path(os.path.expanduser(cast(str | Path, run if ckpt is None else ckpt)))
    checkpoint = find_checkpoint(newest_run(given))
    folder = next((p for p in checkpoint.parents if (p / names.CONFIG).is_file()), None)
    config = read_config(folder / names.CONFIG) if folder is not None else {}
    run_folder = folder or (newest_run(given) if ckpt is None else None)
    return OpenRun(Facts(run_folder, checkpoint, config), checkpoint, shards, overrides, device)

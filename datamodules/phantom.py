"""The embedded cohort as data modules: made on first use, so that the quickstart needs nothing but the clone.

This module and phantom_images are the only data modules that reach into ``preparation``: Lightning's ``prepare_data``
is where a data set is made, once per node, before processes read it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from datamodules.latent_shards import LatentShardsDataModule
from datamodules.prompts import missing_texts
from meddiff.common.errors import UserError
from meddiff.common.locks import locked
from meddiff.common.places import locate
from meddiff.models.backbones import vae_identity
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import DEFAULT_VAE, phantom_folder, prepare_phantom
from meddiff.shards.access import access_of
from meddiff.shards.manifest import MANIFEST_NAME, Manifest
from meddiff.shards.split_folders import Cohorts, cohorts_of
from meddiff.shards.stored import Store


class MadeOnFirstUse:
    """What a data module has over shards that it makes when they are not there yet."""

    phantom: PhantomOptions
    folder: str
    splits_from: dict[str, str]

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """Nothing can be missing but texts, and the autoencoder, which the model's own preflight names."""
        path = init_args.get("synthetic_prompts")
        wanted = init_args.get("prompt") == "synthetic"
        return missing_texts("synthetic", path if isinstance(path, str) else None) if wanted else []

    @classmethod
    def split_sizes(cls, **init_args: object) -> dict[str, int]:
        """Samples of each split, whether the shards are there or not."""
        return options_of(init_args).sizes()

    def cohorts(self) -> Cohorts:
        """As of any shards; before the first use there are none yet."""
        if self.made():
            found: Cohorts = super().cohorts()  # type: ignore[misc]  # of the data module that it is mixed into
            return found
        return [("phantom", access_of("phantom")), *cohorts_of(None, self.splits_from)]

    def made(self) -> bool:
        """Whether the shards are there whole."""
        return (Path(self.folder) / MANIFEST_NAME).is_file()

    def make(self, vae: str, processes: int | None, store: Store) -> Manifest:
        """Make the shards unless they are there whole; of several trainings that begin together one does, others wait.

        Raises:
            UserError: the folder holds phantoms of other options.
        """
        if not self.made():
            command = f"made on first use by {type(self).__name__}"
            with locked(self.folder, "first training on these phantoms", wait=True):
                if not self.made():  # another may have made them meanwhile
                    prepare_phantom(self.phantom, self.folder, vae, command=command, processes=processes, store=store)
        found = Manifest.read(self.folder)
        if found.options != json.loads(json.dumps(self.phantom.told())):
            raise UserError(
                f"{self.folder} holds phantoms of other options than --data.phantom says: choose another folder."
            )
        return found


class PhantomLatentsDataModule(MadeOnFirstUse, LatentShardsDataModule):
    """Latent shards of phantoms, rendered and encoded when they are not there yet.

    Args:
        phantom: the generator's options.
        vae: the autoencoder to encode with.
        shards: folder of the shards; null means ``data/phantom-<digest of the options>``.
        processes: processes that render and encode; null means one a core.
    """

    def __init__(
        self,
        phantom: PhantomOptions = PhantomOptions(),  # noqa: B008 (frozen dataclass)
        vae: str = DEFAULT_VAE,
        shards: str | None = None,
        processes: int | None = None,
        **kwargs: object,
    ) -> None:
        folder = shards or phantom_folder(phantom, vae)
        # passed on as they come, so that jsonargparse finds the parent's arguments with their defaults
        super().__init__(folder, **kwargs)  # type: ignore[arg-type]
        self.phantom, self.vae, self.folder, self.processes = phantom, vae, folder, processes

    @classmethod
    def read_manifest(cls, **init_args: object) -> Manifest | None:
        """The manifest of shards that are there already; None before the first use."""
        folder = init_args.get("shards")
        there = isinstance(folder, str) and folder and (Path(folder) / MANIFEST_NAME).is_file()
        return Manifest.read(str(folder)) if there else None

    def prepare_data(self) -> None:
        """Make the shards unless they are there whole, and look whether their autoencoder still is."""
        found = self.make(self.vae, self.processes, "latents")
        # by what lies there: the folder's name only knows where the autoencoder was
        if locate(self.vae).exists() and vae_identity(self.vae, found.vae["sha256"])["sha256"] != found.vae["sha256"]:
            raise UserError(
                f"{self.folder} was encoded with another autoencoder than lies at {self.vae} now: remove it, or name "
                f"another folder with --data.shards."
            )


def options_of(init_args: Mapping[str, object]) -> PhantomOptions:
    """As the arguments of a data module say, which are a dictionary before anything is built."""
    given = init_args.get("phantom")
    return PhantomOptions(**given) if isinstance(given, Mapping) else given or PhantomOptions()  # type: ignore[return-value]

"""The embedded cohort as pixels: rendered on first use, so that a model of pixels needs nothing but the clone."""

from datamodules.image_shards import ImageShardsDataModule, pixel_problems
from datamodules.phantom import MadeOnFirstUse, options_of
from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder
from meddiff.shards.manifest import Manifest
from meddiff.shards.stored import as_pixels, nothing_yet


class PhantomPixelsDataModule(MadeOnFirstUse, ImageShardsDataModule):
    """Pictures of phantoms in shards, rendered when they are not there yet; no autoencoder is needed.

    Args:
        phantom: the generator's options; its resolution is the largest that can be asked for.
        shards: folder of the shards; null means ``data/phantom-<digest of the options>``.
        processes: processes that render; null means one a core.
        resolution: side of the pictures; null takes them as they are rendered.
        channels: 1 or 3.
    """

    def __init__(
        self,
        phantom: PhantomOptions = PhantomOptions(),  # noqa: B008 (frozen dataclass)
        shards: str | None = None,
        processes: int | None = None,
        resolution: int | None = None,
        channels: int = 1,
        **kwargs: object,
    ) -> None:
        folder = shards or phantom_folder(phantom, "", "images")
        super().__init__(folder, resolution, channels, **kwargs)
        self.phantom, self.folder, self.processes = phantom, folder, processes

    @classmethod
    def preflight(cls, **init_args: object) -> list[str]:
        """Only texts can be missing; a size that phantoms do not have is told as well."""
        found = MadeOnFirstUse.preflight(**init_args) + pixel_problems(init_args)
        largest, side = options_of(init_args).resolution, init_args.get("resolution")
        if isinstance(side, int) and side > largest:
            found.append(f"resolution is {side} and phantoms are rendered at {largest} px: ask for at most that.")
        return found

    @classmethod
    def read_manifest(cls, **init_args: object) -> Manifest | None:
        """What the shards will say, whether they are there or not."""
        options = options_of(init_args)
        side, channels = init_args.get("resolution"), init_args.get("channels", 1)
        assert side is None or isinstance(side, int)
        assert isinstance(channels, int)
        side = options.resolution if side is None else side
        return as_pixels(nothing_yet("phantom", max(side, options.resolution)), "phantoms", side, channels)

    def prepare_data(self) -> None:
        """Make the shards unless they are there whole."""
        self.make("", self.processes, "images")

"""The data module of every training on pixels: the stream of latents, with stored pictures in their place. Source: own."""

from collections.abc import Mapping

from datamodules.items import PixelRules
from datamodules.latent_shards import LatentShardsDataModule
from meddiff.common.errors import UserError
from meddiff.common.ranges import COUNT, range_problems
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.pixels import PicturesDataset, Pixels
from meddiff.shards.stored import as_pixels

CHANNELS = (1, 3)


def pixel_problems(init_args: Mapping[str, object]) -> list[str]:
    """A sentence for each of ``resolution`` and ``channels`` that cannot be."""
    problems = range_problems(init_args, {"resolution": COUNT})
    if init_args.get("channels", 1) not in CHANNELS:
        problems.append(f"channels is {init_args['channels']}: give 1 (grey) or 3 (red, green, blue).")
    return problems


class ImageShardsDataModule(LatentShardsDataModule):
    """Pictures, captions, labels and all random numbers of training and evaluation, from shards that store pictures.

    Everything is as of :class:`~datamodules.latent_shards.LatentShardsDataModule`: one endless stream, a function of
    (seed, epoch) alone, and its exact resume. Only ``latents`` of a batch are pixels, float32 (B, channels, R, R) in [-1, 1].
    ``manifest`` says what a model of pixels must agree with: latents of that shape, of scale 1.

    Args:
        shards: the folder that ``lightning prepare COHORT --store images`` (or both) wrote; or URLs of such shards.
        resolution: side of the pictures; smaller than stored ones are area means. Null takes them as they are stored.
        channels: 1 takes the luminance of coloured pictures, 3 repeats that of grey ones.
    """

    def __init__(
        self, shards: str | list[str], resolution: int | None = None, channels: int = 1, **kwargs: object
    ) -> None:
        # passed on as they come, so that jsonargparse finds the parent's arguments with their defaults
        super().__init__(shards, **kwargs)  # type: ignore[arg-type]
        self.resolution, self.channels = resolution, channels
        if problems := pixel_problems(vars(self)):
            raise UserError(*problems)

    def read_as(self, manifest: Manifest, where: str) -> Manifest:
        """What a manifest says to who reads pictures; a folder that lacks them, or has smaller ones, is refused."""
        return as_pixels(manifest, where, self.resolution, self.channels)

    def dataset(self, split: str) -> LatentShardsDataset:
        """A local split: pictures, metadata and masks by index; its latents are pixels."""
        if split not in self._datasets:
            folder = self.splits_from.get(split) or self._folder()
            self._datasets[split] = PicturesDataset(folder, split, True, self.resolution, self.channels)
        return self._datasets[split]

    def _rules(self) -> PixelRules:
        manifest = self.manifest
        pixels = Pixels(manifest.resolution, self.channels)
        about = (self._seed(), manifest.scaling_factor, manifest.stored_shape, manifest.latent_shape)
        return PixelRules(*about, False, self.prompt, self.texts, pixels=pixels)

    def _facts(self) -> dict[str, int | str]:
        shape = self.manifest.latent_shape
        return super()._facts() | {"resolution": shape[1], "channels": shape[0]}

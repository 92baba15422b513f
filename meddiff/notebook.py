"""The suite in a notebook: load a model, ask where its words point in an image, draw images. Source: own."""

import math
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.attribution.overlay import overlay
from meddiff.attribution.trajectory import renoised
from meddiff.attribution.words import QUERY_WORDS
from meddiff.common.errors import UserError
from meddiff.common.places import locate
from meddiff.evaluation.explained import Explained, explain_path
from meddiff.evaluation.saliency_tools import build_tools
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import resize_maps
from meddiff.models.autoencoder import encode
from meddiff.models.backbones import vae_downsample
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.noise_schedule import PredictionType
from meddiff.models.patronus import Patronus
from meddiff.models.pipeline import is_pipeline, load_pipeline
from meddiff.models.sampling import SamplingOptions
from meddiff.models.text.tokens import Word
from meddiff.models.weights.sources import HUB_PREFIX, Source
from meddiff.notebook_images import AnyImage, read_pixels
from meddiff.notebook_prototypes import Edited, PrototypeMaps, edit_image, find_prototypes
from meddiff.preparation.geometry import resize_image
from meddiff.runs.checkpoints import is_own_checkpoint
from meddiff.runs.open_run import newest_run, open_run, wanted_device

#: Images drawn at a time; changes no result.
BATCH = 8


def load(
    path: str | os.PathLike[str],
    vae: str | None = None,
    ema: bool = False,
    device: str = "auto",
    text_encoder: Source | None = None,
    prediction_type: PredictionType | None = None,
) -> "LoadedModel":
    """A trained model: a run of this suite, or any published one of the Stable Diffusion family.

    Args:
        path: run folder (RUNS/NAME/TIME, or RUNS/NAME for its newest run), checkpoint file, diffusers folder of a pipeline or
            a U-Net such as ``assets/phantom_base``, original single file (.ckpt, .safetensors), or ``hub:ORG/NAME``.
        vae: autoencoder, if it has moved since training or the folder has none.
        ema: compute with the averaged weights.
        device: "auto" (a GPU where there is one), "cpu", "cuda", ...
        text_encoder: instead of a published model's own; a folder, or ``{checkpoint: FOLDER, max_length: 128, ...}``.
        prediction_type: what a published model's U-Net predicts; None takes what is said, or else what the weights tell.

    Raises:
        UserError: nothing there, or weights that do not fit.
    """
    place = os.fspath(path)
    folder = locate(place)
    published = place.startswith(HUB_PREFIX) or (folder.is_file() and not is_own_checkpoint(folder))
    if published or (folder.is_dir() and is_pipeline(folder)):
        model = load_pipeline(place, vae, text_encoder, prediction_type)
        return LoadedModel(model.to(wanted_device(device)), ema)
    if text_encoder is not None or prediction_type is not None:
        raise UserError(
            f"{place} is no published model: what it was trained with is known, leave out what you know of it."
        )
    moved = {"vae": vae} if vae else {}
    run, ckpt = (newest_run(folder), None) if folder.is_dir() else (None, folder)
    return LoadedModel(open_run(run, ckpt, None, device, **moved).model, ema)


class LoadedModel:
    """A model that can be asked and drawn with.

    Args:
        model: its parts.
        ema: compute with the averaged weights.
    """

    def __init__(self, model: LatentDiffusion, ema: bool = False) -> None:
        self.model, self.ema = model.eval(), ema

    @property
    def resolution(self) -> int:
        """Side of its images in pixels."""
        of_pixels = isinstance(self.model, Patronus) and self.model.space == "pixel"
        return self.model.latent_shape[1] * (1 if of_pixels else vae_downsample(dict(self.model.vae.config)))

    def ground(
        self, image: AnyImage, text: str, timesteps: int = 40, seed: int = 0, batch_size: int = 64
    ) -> "WordMaps":
        """Where each word of ``text`` points in ``image``.

        As the suite's grounding measurement: latents noised at the paper's timesteps, cross-attention averaged over
        layers, heads and timesteps. An image that is not square is covered by square windows of its short side, as few
        as reach; where they overlap, maps are averaged.

        Args:
            image: of any size; arrays that are not uint8 are scaled by their range.
            timesteps: how many of the paper's 40 timesteps.
            seed: of the noise.
            batch_size: forward passes at once; changes no result.

        Raises:
            UserError: no image, no word in ``text``, or attention that is not finite.
        """
        pixels = read_pixels(image)
        tokenizer = self.model.text_encoder.tokenizer
        kept = {word: tokenizer.kept(word) for word in tokenizer.words(text)}
        words = [word for word, (start, stop) in kept.items() if stop > start]
        if not words:
            raise UserError("There is no word in the text to ask for: give a phrase such as 'Left pleural effusion.'.")
        height, width = pixels.shape[:2]
        corners, side = windows(height, width)
        crops = [resize_image(pixels[y : y + side, x : x + side], self.resolution) for y, x in corners]
        latents = encode(self.model.vae, crops, self.model.scaling_factor).cpu()  # (B, C, h, w)
        groups = torch.zeros(len(words), tokenizer.max_length)  # (K, L)
        for row, word in enumerate(words):
            start, stop = kept[word]
            groups[row, start:stop] = 1.0 / (stop - start)
        items = [GroundingItem(f"window {i}", one, text, groups) for i, one in enumerate(latents)]
        steps = paper_timesteps(timesteps)
        total, covered = torch.zeros(len(words), height, width), torch.zeros(height, width)
        with undisturbed(self.model), self.model.weights(self.ema):
            maps = grounding_pass(self.model, items, steps, seed, batch_size)
            for i, heat in mean_over_timesteps(maps, len(steps)):  # heat (K, h, w)
                y, x = corners[i]
                total[:, y : y + side, x : x + side] += resize_maps(heat, (side, side))
                covered[y : y + side, x : x + side] += 1
        if not total.isfinite().all():
            raise UserError("The model's attention is not finite: load a checkpoint from before its training broke.")
        return WordMaps(pixels, text, words, (total / covered).numpy())

    def explain(
        self,
        image: AnyImage,
        text: str,
        tools: Sequence[str] = ("attention", "concept"),
        timesteps: int = 8,
        paper: bool = False,
        guidance_scale: float = 4.0,
        seed: int = 0,
    ) -> Explained:
        """Where every tool points in ``image``, timestep by timestep: ``.panels()`` and ``.animation()`` draw it.

        Args:
            image: as for :meth:`ground`; of one that is not square, the middle square.
            tools: names of :data:`meddiff.evaluation.saliency_tools.TOOLS`.
            timesteps: how many of the paper's 40 timesteps.
            paper: tools as they were published.
            guidance_scale: of what the model takes the clean image for, and of tools that look at it.
            seed: of noise and masks.

        Raises:
            UserError: no image, no word in ``text``, or an unknown tool.
        """
        build_tools(tools, paper)
        crop = self._middle(image)
        with undisturbed(self.model), self.model.weights(self.ema):
            latents = encode(self.model.vae, [crop], self.model.scaling_factor).cpu()[0]  # (C, h, w)
            item = GroundingItem("window 0", latents, text, torch.empty(0, 0))
            path = renoised(self.model, [item], paper_timesteps(timesteps), seed, guidance_scale)[0]
            return explain_path(self.model, path, tools, crop, paper, seed)

    def prototypes(self, image: AnyImage) -> PrototypeMaps:
        """Which prototypes ``image`` (its middle square) has, and where; of a Patronus alone."""
        return find_prototypes(self.model, self.ema, self._middle(image))

    def edit(self, image: AnyImage, edits: Mapping[int, float], text: str | None = None, steps: int = 50) -> Edited:
        """``image`` (its middle square) drawn again with activations set, such as ``{12: 0.8}``; of a Patronus alone."""
        return edit_image(self.model, self.ema, self._middle(image), edits, text, steps)

    def _middle(self, image: AnyImage) -> NDArray[np.uint8]:
        """The middle square at the model's size."""
        pixels = read_pixels(image)
        height, width = pixels.shape[:2]
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        return resize_image(pixels[y : y + side, x : x + side], self.resolution)

    def sample(
        self, prompts: str | Sequence[str], seed: int = 0, sampling: SamplingOptions | None = None
    ) -> list[Image.Image]:
        """One image a prompt, the same as ``lightning sample --seed SEED`` draws first for each.

        Args:
            seed: the noise is drawn from (seed, number of the prompt).
            sampling: how; None takes the model's own.

        Raises:
            NotFiniteImages: some came out as no numbers.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        keys = [f"{number:04d}-000" for number in range(len(texts))]
        drawn: list[Image.Image] = []
        with undisturbed(self.model), self.model.weights(self.ema):
            for start in range(0, len(texts), BATCH):
                part = slice(start, start + BATCH)
                drawn += map(Image.fromarray, self.model.sample(texts[part], keys[part], seed, sampling))
        return drawn


class WordMaps:
    """Heat maps of the words of a text over an image.

    Attributes:
        image: uint8 (H, W) or (H, W, 3).
        text: the prompt.
        words: as they stand in the text; those beyond the tokens that the text tower takes are left out.
        heat: (K, H, W) float32, attention of each word; values of one map are comparable with each other.
    """

    def __init__(self, image: NDArray[np.uint8], text: str, words: Sequence[Word], heat: NDArray[np.float32]) -> None:
        self.image, self.text, self.heat = image, text, heat
        self.words = [word.text for word in words]

    def __getitem__(self, phrase: str) -> NDArray[np.float32]:
        """The mean map (H, W) of every place in the text where the words of ``phrase`` stand, in any case.

        Raises:
            UserError: the text has no such words.
        """
        wanted, there = phrase.split(), [bare(word) for word in self.words]
        size = max(1, len(wanted))
        starts = [i for i in range(len(there)) if there[i : i + size] == [bare(word) for word in wanted]]
        if not wanted or not starts:
            raise UserError(f"{phrase!r} is no word of {self.text!r}: there are {', '.join(dict.fromkeys(there))}.")
        return self._mean([k for i in starts for k in range(i, i + size)])

    def plot(self, phrase: str | None = None) -> Image.Image:
        """The map over the image.

        Args:
            phrase: as in ``maps[phrase]``; None takes the words that name a finding, or all words where none does.
        """
        return Image.fromarray(overlay(self.image, self.named() if phrase is None else self[phrase]))

    def named(self) -> NDArray[np.float32]:
        """The mean map (H, W) of the words that name a finding, or of all words where none does."""
        queries = [query for words in QUERY_WORDS.values() for query in words]
        hits = [i for i, word in enumerate(self.words) if any(query in word.lower() for query in queries)]
        return self._mean(hits or list(range(len(self.words))))

    def _mean(self, places: list[int]) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = self.heat[places].mean(axis=0)
        return mean


def bare(word: str) -> str:
    """A word in lower case without the punctuation around it.

    Example:
        >>> bare("(Effusion).")
        'effusion'
    """
    return re.sub(r"^\W+|\W+$", "", word.lower())


def windows(height: int, width: int) -> tuple[list[tuple[int, int]], int]:
    """Upper left corners (y, x) of the fewest square windows of the short side that cover an image, evenly spread.

    Returns:
        the corners and the side.

    Example:
        >>> windows(512, 640)
        ([(0, 0), (0, 128)], 512)
    """
    side, long = min(height, width), max(height, width)
    number = math.ceil(long / side)
    starts = [round(i * (long - side) / max(1, number - 1)) for i in range(number)]
    return [(start, 0) if height > width else (0, start) for start in starts], side

"""Every prototype raised in a few images: the picture that shows it, and when it came. Work is kept prototype by prototype.

The images are inverted once for all prototypes, and drawn once without an edit; each prototype then costs one drawing of
them, which gives both its view and its curves of emergence. Source: Weng et al. 2026, spec A7.1 and A7.7; see
:mod:`meddiff.attribution.prototype_edits` and :mod:`meddiff.attribution.emergence`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypedDict

from meddiff.attribution.emergence import Blur, HalfTime, blur_of, emergence_curves, half_time_of, random_twin
from meddiff.attribution.inversion import ddim_grid, edited
from meddiff.attribution.prototype_edits import Inverted, Told, Watched, best_view, in_pixels, inverted, watch
from meddiff.attribution.prototype_statistics import HIGH, Spread, mahalanobis, own_levels
from meddiff.common.files import atomic_open
from meddiff.common.outside import file_in
from meddiff.common.progress import progress_bar
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.prototype_inputs import inputs_of
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.saliency_scores import mean_row
from meddiff.models.patronus import Patronus
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.members import png_bytes

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
#: Folder of an evaluation that holds the pictures.
PICTURES = "prototype_views"
#: Images that the blur of the control is estimated from.
BLURRED = 256
#: A smaller change of an activation shows in no picture, however sure its sign: it has no time.
NOTICED = 0.01
EMERGENCE = ("model", "seed", "images", "prototype", "curve", "timestep", "value", "low", "high", "n")


class Entry(TypedDict):
    """One line of the ledger: one prototype, raised."""

    address: str
    made: str
    prototype: int
    image: int  # index in the split
    before: float
    after: float
    level: float
    odd: float
    box: list[int]  # y0, x0, y1, x1 in pixels
    curves: dict[str, list[list[float]]]  # (T, n) each


@dataclass
class Raised:
    """What was drawn.

    Attributes:
        entries: one a prototype.
        timesteps: of the curves.
        keys: of the images.
        pictures: prototype -> the picture of its view, uint8 (H, W, 3).
    """

    entries: list[Entry]
    timesteps: list[int]
    keys: list[str]
    pictures: dict[int, Pixels] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """Mean of each curve at each timestep, with its 95 % interval over images."""
        rows: list[Row] = []
        for entry in self.entries:
            for curve, values in entry["curves"].items():
                for timestep, some in zip(self.timesteps, values, strict=True):
                    cells = [(key, "", value) for key, value in zip(self.keys, some, strict=True)]
                    rows.append(
                        {"prototype": entry["prototype"], "curve": curve, "timestep": timestep, **mean_row(cells)}
                    )
        return rows

    def when(self, entry: Entry) -> dict[str, float | None]:
        """``t_half`` with its ends, of the paired curve and of its controls; None where the prototype was not raised."""
        found: dict[str, float | None] = {}
        for curve, suffix in (("paired", ""), ("low_pass", "_low_pass")):
            values = np.array(entry["curves"][curve])
            half = half_time_of(self.timesteps, values, (entry["prototype"], curve))
            if not values[-1].mean() >= NOTICED:
                half = HalfTime(math.nan, math.nan, math.nan)
            ends = (("", half.value), ("_low", half.low), ("_high", half.high))
            for end, value in ends if not suffix else ends[:1]:
                found[f"t_half{suffix}{end}"] = value if np.isfinite(value) else None
        for curve in ("paired", "random"):
            found[f"change_{curve}"] = float(np.mean(entry["curves"][curve][-1]))
        return found


def drawing_cost(images: int, prototypes: int, steps: int) -> float:
    """U-Net evaluations: the inversion (two a step), the drawing without an edit, and one drawing a prototype."""
    return float(images * steps * (3 + prototypes)) if images and prototypes else 0.0


def raise_prototypes(
    model: Patronus,
    split: LatentShardsDataset,
    indices: Sequence[int],
    prototypes: Sequence[int],
    activations: Floats,
    spread: Spread,
    steps: int,
    seed: int,
    batch_size: int,
    out: Path | None,
    ranks: Ranks,
    show_progress: bool = False,
    ema: bool = False,
) -> Raised:
    """Draw what the ledger does not remember.

    Args:
        model: in eval mode, with the weights that are meant.
        indices: of the images that are raised.
        prototypes: which ones.
        activations: (N, m) of held-out images, for the levels.
        batch_size: images at a time; changes no result.

    Raises:
        UserError: results of other settings are in the way.
    """
    timesteps, keys = ddim_grid(steps, len(model.noise_schedule.alphas_cumprod)), [split.keys[one] for one in indices]
    levels = own_levels(activations, HIGH)
    about = {
        "seed": seed,
        "ema": ema,
        "timesteps": timesteps,
        "keys": hashlib.sha256("\n".join(keys).encode()).hexdigest(),
    }
    ledger: Ledger[Entry] = open_ledger(out, "prototypes.jsonl", model, split, about, Entry)
    made = {one: f"{levels[one]:.9g}" for one in prototypes}
    raised, folder = Raised([], timesteps, keys), None if out is None else out / PICTURES

    def valid(entries: Sequence[Entry]) -> dict[int, Entry]:
        found = {one["prototype"]: one for one in entries if made.get(one["prototype"]) == one["made"]}
        return {number: one for number, one in found.items() if _picture(raised, folder, number) is not None}

    with ledger:
        missing = ranks.share([one for one in prototypes if one not in valid(ledger.entries)])
        cost = int(drawing_cost(len(indices), len(missing), steps))
        shown = show_progress and ranks.is_first
        with progress_bar(cost, "pass", "prototypes raised", shown) as bar:
            if missing:
                work = _Work(model, split, indices, timesteps, seed, batch_size, bar.update)
                for number in missing:
                    entry, picture = work.raised(number, float(levels[number]), spread)
                    _keep(raised, folder, number, picture)
                    ledger.add({**entry, "made": made[number]})
        found = valid(ranks.gather(ledger.entries))
    if folder is None:
        raised.pictures = dict(ranks.gather(list(raised.pictures.items())))
    raised.entries = [found[one] for one in prototypes if one in found]
    return raised


class _Work:
    """The images, inverted and drawn without an edit, batch by batch."""

    def __init__(
        self,
        model: Patronus,
        split: LatentShardsDataset,
        indices: Sequence[int],
        timesteps: Sequence[int],
        seed: int,
        batch_size: int,
        told: Told,
    ) -> None:
        self.model, self.indices, self.timesteps, self.told = model, list(indices), timesteps, told
        self.encoders = (model.prototypes, random_twin(model.prototypes, seed))
        inputs = inputs_of(split, seed)
        self.parts: list[tuple[Inverted, Watched, list[str] | None]] = []
        for start in range(0, len(self.indices), batch_size):
            part = self.indices[start : start + batch_size]
            texts = [str(split.metadata(one)["impression"]) for one in part] if model.reads_text else None
            one = inverted(model, torch.stack([inputs(index) for index in part]), timesteps, texts)
            told(2 * len(part) * len(timesteps))
            self.parts.append((one, watch(model, one.noise, one.activations, timesteps, self.encoders, texts), texts))
            told(len(part) * len(timesteps))
        some = range(min(BLURRED, len(split)))
        self.blur: Blur = blur_of(torch.stack([inputs(index) for index in some]))

    def raised(self, number: int, level: float, spread: Spread) -> tuple[Entry, Pixels]:
        """One prototype at its level in all images."""
        curves: list[dict[str, Floats]] = []
        pictures, odd = [], []
        for start, base, texts in self.parts:
            to = edited(start.activations, {number: level})
            odd.append(mahalanobis(spread, to.double().cpu().numpy()))
            drawn = watch(self.model, start.noise, to, self.timesteps, self.encoders, texts)
            self.told(len(start.x0) * len(self.timesteps))
            control = (self.model.prototypes, self.blur, self.model.noise_schedule)
            curves.append(emergence_curves(number, start.activations.cpu(), drawn, base, control, self.timesteps))
            pictures.append(drawn.clean)
        before = torch.cat([start.activations for start, _, _ in self.parts]).cpu()
        view = best_view(self.model, number, before, torch.cat(pictures))
        picture = self.model.to_images(view.picture[None].to(self.model.device))[0]
        whole = {name: np.concatenate([one[name] for one in curves], axis=1) for name in curves[0]}
        entry: Entry = {
            "address": str(number),
            "made": "",
            "prototype": number,
            "image": self.indices[view.image],
            "before": view.before,
            "after": view.after,
            "level": level,
            "odd": float(np.median(np.concatenate(odd))),
            "box": list(in_pixels(view.box, self.model.downsample)),
            "curves": {name: values.tolist() for name, values in whole.items()},
        }
        return entry, picture


def _picture(raised: Raised, folder: Path | None, number: int) -> Pixels | None:
    """The kept picture of a prototype; None where there is none."""
    if number not in raised.pictures and folder is not None:
        try:
            with Image.open(file_in(folder, f"{number:04d}.png")) as stored:
                raised.pictures[number] = np.asarray(stored.convert("RGB"))
        except (OSError, SyntaxError, ValueError):
            return None
    return raised.pictures.get(number)


def _keep(raised: Raised, folder: Path | None, number: int, picture: Pixels) -> None:
    raised.pictures[number] = picture
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_open(file_in(folder, f"{number:04d}.png")) as stream:
            stream.write(png_bytes(Image.fromarray(picture)))

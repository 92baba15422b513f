"""Is a generator useful? A classifier is trained on what it draws and scored on held-out real images.

Arms: ``real`` images, ``synthetic`` ones drawn for the captions of the same images, ``real_and_synthetic`` (half of each
batch) and ``synthetic_then_real`` (half of the steps each), all with the same number of optimiser steps, chosen among a few
checks on real validation images, scored once on real test images. Controls on the same lines: ``shuffled`` (real images,
labels dealt out anew: chance) and ``real_twice`` (twice the steps: what more training alone is worth). Several seeds, and each
arm less ``real`` in pairs, over seeds and test images at once.
The label of a drawn image is that of its prompt, never what a classifier sees in it. Training and validation images are
latents through the autoencoder, since shards keep no others; drawn ones come out of the same decoder.
Source: spec/evaluation_beyond.md section 5; protocol own.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from meddiff.common.errors import UserError, refuse
from meddiff.common.findings import FINDINGS
from meddiff.common.places import locate
from meddiff.common.progress import progress_bar
from meddiff.evaluation.alignment import label_table
from meddiff.evaluation.compared_sets import decoded, shared_patients, training_order, training_problems
from meddiff.evaluation.cores import over_cores
from meddiff.evaluation.feature_cache import Features, stored_images
from meddiff.evaluation.image_sets import Drawing, ImageSets
from meddiff.evaluation.ledger import Ledger, open_ledger
from meddiff.evaluation.measurement import Result, Table
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.evaluation.utility_arms import ARMS, Pictures, Recipe, new_network, plan, scored, train_arm
from meddiff.evaluation.utility_options import UtilityOptions
from meddiff.evaluation.utility_result import FIRST, Entry, utility_result
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.weights.fitting import fit_state
from meddiff.models.weights.reading import State, read_state
from meddiff.models.xrv import OPERATING_POINTS, resize_square
from meddiff.shards.dataset import LatentShardsDataset

#: Images that are drawn where no number is given: a laptop draws them in a minute or two with the embedded model.
DRAWN = 400
#: Name of what a classifier sees of an image.
LOOK = "look"


class Utility:
    """AUROC on real test images of classifiers trained on real and on drawn images.

    Args:
        options: what is measured.
        train: split that the model was trained on; None where there is none.
        validation: split by which a check is chosen; None where there is none.
        show_progress: draw progress bars.
    """

    def __init__(
        self,
        options: UtilityOptions = UtilityOptions(),  # noqa: B008 (frozen dataclass)
        train: LatentShardsDataset | None = None,
        validation: LatentShardsDataset | None = None,
        show_progress: bool = False,
    ) -> None:
        self.options, self.train, self.validation, self.show_progress = options, train, validation, show_progress

    def number(self) -> int:
        """Training images, and images drawn."""
        return min(DRAWN, len(self.train or ())) if self.options.samples is None else self.options.samples

    def units(self) -> list[tuple[str, int]]:
        """(arm, seed) of every classifier, in the order of training."""
        options = self.options
        return [(arm, options.seed + k) for k in range(options.seeds) for arm in dict.fromkeys(("real", *options.arms))]

    def steps(self) -> int:
        """Optimiser steps of all classifiers together."""
        return sum(count for arm, _ in self.units() for _, count in plan(arm, self.options.steps))

    def check(self, split: LatentShardsDataset) -> None:
        """Refuse missing splits and images, a network that cannot be trained, and a test split with too few of every class."""
        options, problems = self.options, training_problems(self.train, split)
        held = self.validation
        if held is None or not len(held):
            problems.append(
                f"utility: there is no split {options.validation!r} to choose by: set validation to another one."
            )
        elif held.split in (split.split, getattr(self.train, "split", None)) and held.folder == split.folder:
            problems.append(
                f"utility: the split {held.split!r} is trained on or scored on: choose by another one (validation)."
            )
        if self.train is not None and not 2 <= self.number() <= len(self.train):
            problems.append(
                f"utility: {self.number()} samples are asked for, and there are {len(self.train)} training images: set "
                "samples to 2 or more of them."
            )
        if not self.counted(split):
            problems.append(
                f"utility: no finding has {options.fewest} images with and without it in the split {split.split!r} of "
                f"{split.folder} ({len(split)} images): set fewest lower, or give a larger split."
            )
        refuse(problems)
        recipe = self.recipe()
        try:
            scored(new_network(recipe, 0), torch.zeros(2, 1, options.side, options.side), torch.device("cpu"))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"utility: no network of {options.network} looks at images of {options.side} px ({error}): set network or side."
            ) from error

    def counted(self, split: LatentShardsDataset) -> list[int]:
        """Places of the findings that have enough test images."""
        labels = label_table(split, range(len(split)), FINDINGS)
        with_it = labels.sum(dim=0)
        enough = torch.minimum(with_it, len(labels) - with_it) >= self.options.fewest
        return enough.nonzero().flatten().tolist()

    def cost(self, model: LatentDiffusion, split: LatentShardsDataset) -> float:
        """U-Net forward passes of one run; less where copies has drawn the same images. :meth:`steps` come on top."""
        way = self.options.sampling or model.sampling
        return float(self.number() * way.forward_passes)

    def seconds(self, device: torch.device) -> float:
        """What the training of all classifiers takes here and now, from the second of two steps."""
        options, recipe = self.options, self.recipe()
        n = options.classifier_batch
        noise = Pictures(torch.zeros(n, 1, options.side, options.side), torch.zeros(n, len(FINDINGS), dtype=torch.bool))
        times: list[float] = []
        short = replace(recipe, steps=2, checks=1)
        sources = {"real": noise, "synthetic": noise}
        train_arm("real", 0, short, sources, noise, noise, device, lambda: times.append(time.monotonic()))
        cores = torch.get_num_threads() if device.type == "cpu" else 1
        return (times[-1] - times[-2]) * self.steps() / cores

    def recipe(self) -> Recipe:
        """How every classifier is trained.

        Raises:
            UserError: ``initial`` is missing, or of another network.
        """
        options = self.options
        recipe = Recipe(
            options.network, FINDINGS, options.steps, options.classifier_batch, options.learning_rate, options.checks
        )
        if options.initial is None:
            return recipe
        if not locate(options.initial).is_file() or not options.initial.endswith(".safetensors"):
            raise UserError(f"utility: no weights at {options.initial}: give a .safetensors file as initial, or none.")
        wanted = {k: v for k, v in new_network(recipe, 0).state_dict().items() if not k.startswith("classifier.")}
        state: State = read_state(locate(options.initial))
        begin = fit_state(wanted, state, f"utility: {options.initial}", ("classifier.*", *OPERATING_POINTS))
        return replace(recipe, begin=begin)

    def run(self, model: LatentDiffusion, split: LatentShardsDataset, out: Path | None, ranks: Ranks) -> Result:
        """Tables ``utility``, a row an arm, ``utility_classes`` and ``utility_runs``.

        Args:
            out: images go to ``images/utility`` there, and are taken from ``images/copies_training`` where those fit;
                classifiers that are trained are kept in ``utility.jsonl``. None keeps both in memory.

        Raises:
            UserError: as :meth:`check`, or images or results of other settings in the way.
        """
        self.check(split)
        assert self.train is not None
        assert self.validation is not None
        options, train, held = self.options, self.train, self.validation
        asked, every = training_order(train, options.seed)[: self.number()], range(len(split))
        show = self.show_progress and ranks.is_first
        drawing = Drawing(options.sampling or model.sampling, options.batch_size, options.seed)
        with undisturbed(model), model.weights(options.ema):
            sets = ImageSets(drawing, {LOOK: self._look}, model, train, out, ranks, show)
            sets.drawn("synthetic", "utility", asked, drawing.sampling, borrow=["copies_training"])
            sets.other("training images", decoded(model, train).images, asked)
            sets.other("validation images", decoded(model, held).images, range(len(held)))
            sets.other("test images", stored_images(split), every)
            looks = sets.gathered()
            if looks["synthetic"] is None:  # classifiers of the others would have seen other captions
                figures = [f"utility_{arm}_auroc" for arm in options.arms]
                return Result(dict.fromkeys(figures, math.nan), {"utility": Table([], FIRST)})
            labels = label_table(train, asked, FINDINGS)
            sources = {
                "real": self._pictures(looks["training images"], labels),
                "synthetic": self._pictures(looks["synthetic"], labels),
            }
            choose = self._pictures(looks["validation images"], label_table(held, range(len(held)), FINDINGS))
            test = self._pictures(looks["test images"], label_table(split, every, FINDINGS))
            made = {arm: _made(arm, sources, choose, test) for arm in ARMS}
            with open_ledger(out, "utility.jsonl", model, split, self._settings(), Entry) as ledger:
                self._train(ledger, made, sources, choose, test, model.device, ranks, show)
                entries = ranks.gather(ledger.entries)
        found = {(one["arm"], one["seed"]): one for one in entries if one["made"] == made[one["arm"]]}
        patients = [split.metadata(i)["patient_id"] for i in every]
        result = utility_result(
            [found[unit] for unit in self.units()], test.labels, patients, self.counted(split), options.steps
        )
        counts = {"n_test": len(split), "n_train": len(asked), "shared_patients": shared_patients(train, split)}
        result.figures |= {name: float(value) for name, value in counts.items()}
        for row in result.tables["utility"].rows:
            row |= {"n_train": float(len(asked)), "n_test": float(len(split))}  # type: ignore[operator]
        return result

    def _settings(self) -> dict[str, object]:
        """Options that a classifier depends on; which arms and seeds there are, and what is drawn, stands with each."""
        names = ("steps", "classifier_batch", "learning_rate", "checks", "side", "network", "ema")
        initial = None if self.options.initial is None else locate(self.options.initial).read_bytes()
        digest = None if initial is None else hashlib.sha256(initial).hexdigest()
        return {**{name: getattr(self.options, name) for name in names}, "initial": digest}

    def _look(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, side * side): grey, brought to the classifier's size."""
        return resize_square(images.mean(dim=1, keepdim=True), self.options.side).flatten(1)

    def _pictures(self, looked: Features | None, labels: Tensor) -> Pictures:
        """As a classifier takes them; half precision is finer than the eight bits they were."""
        assert looked is not None
        return Pictures(looked[LOOK].unflatten(1, (1, self.options.side, self.options.side)).half(), labels)

    def _train(
        self,
        ledger: Ledger[Entry],
        made: Mapping[str, str],
        sources: Mapping[str, Pictures],
        validation: Pictures,
        test: Pictures,
        device: torch.device,
        ranks: Ranks,
        show: bool,
    ) -> None:
        """Train what the ledger lacks; on a CPU as many classifiers at a time as there are cores."""
        done = {(one["arm"], one["seed"]) for one in ledger.entries if one["made"] == made[one["arm"]]}
        missing = ranks.share([unit for unit in self.units() if unit not in done])
        recipe = self.recipe()

        def train(part: Sequence[tuple[str, int]]) -> Entry:
            arm, seed = part[0]
            step: Callable[[], object] = bar.update
            found = train_arm(arm, seed, recipe, sources, validation, test, device, step)
            scores = [[float(f"{value:.6g}") for value in row] for row in found.scores.tolist()]
            chosen = found.validation if math.isfinite(found.validation) else None
            return Entry(arm=arm, seed=seed, made=made[arm], validation=chosen, step=found.step, scores=scores)

        steps = sum(count for arm, _ in missing for _, count in plan(arm, recipe.steps))
        with progress_bar(steps, "step", f"training {len(missing)} classifiers", show) as bar:
            for entry in over_cores(train, missing, 1, device):
                ledger.add(entry)


def _made(arm: str, sources: Mapping[str, Pictures], validation: Pictures, test: Pictures) -> str:
    """Digest of all images and labels that a classifier of this arm meets."""
    used = {
        name for phase in ARMS[arm] for name in (("real", "synthetic") if phase.source == "both" else (phase.source,))
    }
    mine = [sources["real" if name == "shuffled" else name] for name in sorted(used)]
    digest = hashlib.sha256(arm.encode())
    for one in (*mine, validation, test):
        for tensor in (one.images, one.labels):
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

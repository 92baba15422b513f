"""Grounding gain of a model: its words' scores less what the same maps score under their controls.

=================  ============================================================================  =====================
control            what is scored                                                                where
=================  ============================================================================  =====================
``absent``         the same place, asked for a finding that the image does not have              everywhere
``other_patient``  the same map on another patient's box of the same class                       everywhere
``mirrored_box``   the same map on its own box, mirrored                                         everywhere
``other_finding``  the same map on the exact mask of another finding of the image                several findings
``twin``           the same map where the finding lies in the mirrored twin                      mirrored pairs
=================  ============================================================================  =====================

The other patient's box is dealt out in pairs: each of two images of a class has the other's, so that a map which is the same in
all images gives the one what it takes from the other. Source: own; what a gain is: :mod:`meddiff.metrics.gain_summary`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps
from meddiff.attribution.words import query_tokens
from meddiff.common.draws import generator
from meddiff.common.progress import progress_bar
from meddiff.evaluation.cores import one_core
from meddiff.evaluation.grounding_scores import localisation
from meddiff.evaluation.measurement import Row, Table, Value
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.samples import GroundingSample, Pixels, balanced, evaluation_latents
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.metrics.functional import PairedScores, grounding_gain, resize_maps
from meddiff.metrics.gain import GroundingGain
from meddiff.metrics.gain_summary import GAIN_COLUMNS, gain_figures
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.schema import SampleMetadata

#: control -> where else the map of a sample is scored, and the index of the image that place is of
Elsewhere = Mapping[str, tuple[Pixels, int]]
#: Columns of the table of askings.
ASKINGS = ("control", "key", "class", "phrase", "cnr", "control_cnr")


class Described(Protocol):
    """What is known of the images of a split, whether or not they are stored."""

    def metadata(self, sample: int) -> SampleMetadata: ...


class Gains:
    """The askings of one model as they come, and what they come to."""

    def __init__(self) -> None:
        self.askings: list[Row] = []
        self._metric = GroundingGain(sync_on_compute=False)  # the samples of all ranks were gathered before

    def add(
        self, control: str, sample: GroundingSample, asked: Value, under: Value, partner: int | None = None
    ) -> None:
        """One asking.

        Args:
            asked, under: CNR where it should lie and under the control; None or NaN is undefined, and left out.
            partner: index of the other image, where the control has one.
        """
        pair = [torch.tensor([torch.nan if one is None else float(one)], dtype=torch.float64) for one in (asked, under)]
        partners = None if partner is None else [partner]
        self._metric.update(control, PairedScores(*pair), [sample.index], partners)
        self.askings.append(
            {"control": control, "key": sample.key, "class": sample.label, "phrase": sample.phrase}
            | {"cnr": asked, "control_cnr": under}
        )

    def add_elsewhere(self, sample: GroundingSample, heat: Tensor, elsewhere: Elsewhere) -> None:
        """The map (H, W) of a sample on its own place and on others."""
        self.add_scores(sample, score_elsewhere(sample, heat, elsewhere), elsewhere)

    def add_scores(self, sample: GroundingSample, scores: Mapping[str, Sequence[Value]], elsewhere: Elsewhere) -> None:
        """The same, of :func:`score_elsewhere`."""
        for control, (asked, under) in scores.items():
            partner = elsewhere[control][1]
            self.add(control, sample, asked, under, None if partner == sample.index else partner)

    def add_absent(self, samples: Sequence[GroundingSample], maps: Sequence[Tensor], absent: Sequence[Tensor]) -> None:
        """The maps (H, W) of samples, and those of findings that their images do not have, on the samples' boxes."""
        for sample, heat, other in zip(samples, maps, absent, strict=True):
            box = torch.from_numpy(sample.box_mask())[None]
            scores = grounding_gain(heat[None], box, control_maps=other[None])
            self.add("absent", sample, float(scores.asked), float(scores.control))

    def rows(self) -> list[Row]:
        """The least gain first, then one row a control; no rows without askings."""
        return [{name: None if value != value else value for name, value in row.items()} for row in self._metric.rows()]

    def tables(self) -> dict[str, Table]:
        """``gain`` and ``gain_askings``, one row an asking: what tests over several seeds are made of."""
        return {"gain": Table(self.rows(), GAIN_COLUMNS), "gain_askings": Table(self.askings, ASKINGS)}

    def figures(self) -> dict[str, float]:
        """Under the names that are logged."""
        return gain_figures(self._metric.rows())


class Options(Protocol):
    """What the pass over absent findings shares with that over present ones."""

    @property
    def queries(self) -> dict[str, Sequence[str]]: ...
    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def ema(self) -> bool: ...


class Scored(NamedTuple):
    """A phrase whose map was scored: on its boxes, and on the places of :func:`score_elsewhere`."""

    sample: GroundingSample
    elsewhere: Elsewhere
    cnr: Value
    scores: Mapping[str, Sequence[Value]]


def gains_during_training(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    scored: Sequence[Scored],
    limit: int,
    options: Options,
    timesteps: Sequence[int],
    ranks: Ranks,
    show_progress: bool = False,
) -> Gains:
    """Gains under the controls that need no other split; the ranks share the one pass that it takes.

    Args:
        scored: all phrases, the same on every rank.
        limit: how many of them are asked for an absent finding.
    """
    gains = Gains()
    for one in scored:
        gains.add_scores(one.sample, one.scores, one.elsewhere)
    samples = [one.sample for one in scored]
    asked = absent_findings(split, samples, balanced(samples, limit))
    mine = ranks.share(list(range(len(asked))))
    bar = progress_bar(len(mine) * len(timesteps), "pass", "absent findings", show_progress and ranks.is_first)
    under: list[tuple[int, float]] = []
    with bar, model.weights(options.ema):
        pairs = [asked[place] for place in mine]
        queries, seed, size = options.queries, options.seed, options.batch_size
        for i, heat in absent_maps(model, split, pairs, timesteps, queries, seed, size, bar.update):
            with one_core():
                under.append((mine[i], localisation(heat, torch.from_numpy(pairs[i][0].box_mask()))["cnr"]))
    own = {(one.sample.key, one.sample.label, one.sample.phrase): one.cnr for one in scored}
    for place, cnr in sorted(ranks.gather(under)):
        sample = asked[place][0]
        gains.add("absent", sample, own[sample.key, sample.label, sample.phrase], cnr)
    return gains


def score_elsewhere(sample: GroundingSample, heat: Tensor, elsewhere: Elsewhere) -> dict[str, tuple[float, float]]:
    """control -> CNR of a map (H, W) on the sample's boxes and on the control's place, against what lies in neither."""
    box = torch.from_numpy(sample.box_mask())[None]
    found = {}
    for control, (mask, _) in elsewhere.items():
        scores = grounding_gain(heat[None], box, control_places=torch.from_numpy(mask)[None])
        found[control] = (float(scores.asked), float(scores.control))
    return found


def other_places(split: Described, samples: Sequence[GroundingSample]) -> list[Elsewhere]:
    """Of each sample the places that need no other split: its box mirrored, and another patient's of the same class.

    A class with an odd number of images leaves one without another patient's; so does one whose images are all of one patient.
    """
    found: list[dict[str, tuple[Pixels, int]]] = [
        {"mirrored_box": (one.box_mask()[:, ::-1].copy(), one.index)} for one in samples
    ]
    waiting: dict[tuple[str, tuple[int, int]], list[int]] = {}
    draws = [float(generator(0, "other patient", one.key, one.label, one.phrase).random()) for one in samples]
    for place in sorted(range(len(samples)), key=lambda place: draws[place]):
        one = samples[place]
        patient = split.metadata(one.index)["patient_id"]
        queue = waiting.setdefault((one.label, one.size), [])
        other = next((at for at in queue if split.metadata(samples[at].index)["patient_id"] != patient), None)
        if other is None:
            queue.append(place)
            continue
        queue.remove(other)
        for a, b in ((place, other), (other, place)):
            found[a]["other_patient"] = (samples[b].box_mask(), samples[b].index)
    return list(found)


def absent_findings(
    split: Described, samples: Sequence[GroundingSample], of: Sequence[GroundingSample] | None = None
) -> list[tuple[GroundingSample, GroundingSample]]:
    """Each sample with one whose phrase asks for a finding that its image does not have; without one it is left out.

    Args:
        samples: whose phrases are asked.
        of: the samples that are asked; None: all.
    """
    found = []
    for sample in samples if of is None else of:
        present = set(split.metadata(sample.index)["labels"])
        others = [one for one in samples if one.label not in present]
        if others:
            draw = generator(0, "other class", sample.key, sample.label)
            found.append((sample, others[int(draw.integers(len(others)))]))
    return found


def absent_maps(
    model: LatentDiffusion,
    split: LatentShardsDataset,
    asked: Sequence[tuple[GroundingSample, GroundingSample]],
    timesteps: Sequence[int],
    queries: Mapping[str, Sequence[str]],
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """(place in ``asked``, map (H, W) of the absent finding's word on the image of the first), at the size of the image.

    Args:
        asked: of :func:`absent_findings`.
        queries: class -> words that ask for it.
        seed: of latents and noise: those that the present finding's map is made of.
    """
    tokenizer = model.text_encoder.tokenizer
    items = []
    for sample, other in asked:
        weights = query_tokens(tokenizer, other.phrase, queries[other.label]).weights
        latents = evaluation_latents(split, sample.index, seed)
        items.append(GroundingItem(sample.key, latents, other.phrase, weights[None]))
    with undisturbed(model):
        maps = grounding_pass(model, items, timesteps, seed, batch_size, on_progress=on_progress)
        for i, heat in mean_over_timesteps(maps, len(timesteps)):
            yield i, resize_maps(heat, asked[i][0].size)[0]

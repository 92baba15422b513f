"""The phantom cohort: options in, :class:`~meddiff.shards.sample.CohortSample` by index out. Source: own."""

from collections.abc import Iterator
from dataclasses import replace

from meddiff.common.draws import generator
from meddiff.common.findings import NO_FINDING
from meddiff.phantoms.grammar import Report, write
from meddiff.phantoms.lexicon import CHEST, SHAPES
from meddiff.phantoms.options import SPLITS, PhantomOptions
from meddiff.phantoms.plan import Plan, plan_for
from meddiff.phantoms.render import render
from meddiff.phantoms.report_words import swap_sides
from meddiff.phantoms.sampling import draw_scene, sample_scene
from meddiff.phantoms.scene import Scene
from meddiff.phantoms.statistics import box_norms, outline_norms
from meddiff.shards.sample import CohortSample, Phrase


class PhantomCohort:
    """``n`` chest phantoms with truth for every pixel and word.

    ``cohort[i]`` is a pure function of (options, i): any process renders any index to the same bytes. What has to be
    right over a whole split (how often a confounder meets a finding) is decided once in :mod:`.plan`, which is
    itself a pure function of the options.

    Args:
        options: see :class:`PhantomOptions`.

    Raises:
        UserError: when the options ask for data that is not installed.
    """

    def __init__(self, options: PhantomOptions | None = None) -> None:
        self.options = options or PhantomOptions()
        # problems with data that is not there come up here and not in a worker's first sample
        outline_norms(self.options.outlines)
        box_norms(self.options.boxes)
        self.plan: Plan = plan_for(self.options)

    def __len__(self) -> int:
        return self.options.n

    def __iter__(self) -> Iterator[CohortSample]:
        return (self[index] for index in range(len(self)))

    def key(self, index: int) -> str:
        """Name of phantom ``index``; sorting by name is sorting by index."""
        return f"phantom-{index:06d}"

    def keys(self) -> list[str]:
        """Names of all phantoms in the order of their indices."""
        return [self.key(index) for index in range(len(self))]

    def split_of(self, index: int) -> str:
        """Split of phantom ``index``: contiguous blocks in the order train, val, grounding, fidelity."""
        for name in SPLITS:
            size = self.options.sizes()[name]
            if index < size:
                return name
            index -= size
        raise IndexError(index)

    def __getitem__(self, index: int) -> CohortSample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        scene = self.scene(index)
        report = self.report(index, scene)
        picture = render(scene, self.options.resolution)
        boxes = tuple(picture.boxes)
        phrases = [
            Phrase(text, label, tuple(box for box in boxes if box.label == label)) for label, text in report.phrases
        ]
        pair = index // 2 if self.options.mirrored_pairs else index
        return CohortSample(
            key=self.key(index),
            image=picture.image,
            impression=report.impression,
            labels=[finding.label for finding in scene.findings] or [NO_FINDING],
            split=self.split_of(index),
            patient_id=f"phantom-p{pair:06d}",
            view=scene.anatomy.view,
            phrases=phrases,
            boxes=list(boxes),
            masks=picture.masks,
            attributes=self._attributes(index, scene),
            source=f"phantom://{self.options.seed}/{index}",
        )

    def scene(self, index: int, judged: bool = True) -> Scene:
        """The scene of phantom ``index``; every odd one mirrors the one before when ``mirrored_pairs`` is on.

        Args:
            judged: draw it again until every finding can be seen; else the first draw, in a tenth of the time.
        """
        pair, mirrored = divmod(index, 2) if self.options.mirrored_pairs else (index, 0)
        report = self.plan.reports[index]
        address, labels = (self.options.seed, "phantom", pair), self.plan.labels[index]
        hints = dict(report.hints) if report else {}
        rest = (self.plan.confounders[index], outline_norms(self.options.outlines), box_norms(self.options.boxes))
        scene = (
            sample_scene(address, labels, hints, *rest, self.options.mirrored_pairs, self.options.aligned)
            if judged
            else draw_scene(address, 0, labels, hints, *rest, self.options.aligned)
        )
        scene = replace(scene, domain=self.options.domain, shift=self.options.strength)
        return scene.mirrored() if mirrored else scene

    def caption(self, index: int) -> tuple[str, dict[str, dict[str, object]]]:
        """An impression of the language of these phantoms, and the findings it was written for, as ``attributes`` has them.

        For a training on text alone: no picture is judged, so where the scene of phantom ``index`` had to be drawn again its
        own impression is another one.
        """
        scene = self.scene(index, judged=False)
        return self.report(index, scene).impression, findings_of(scene)

    def report(self, index: int, scene: Scene | None = None) -> Report:
        """The text of phantom ``index``; a mirrored phantom has the words of its twin with the sides swapped."""
        real = self.plan.reports[index]
        pair, mirrored = divmod(index, 2) if self.options.mirrored_pairs else (index, 0)
        if real:
            swap = swap_sides if mirrored else str
            return Report(swap(real.impression), tuple((label, swap(text)) for label, text in real.phrases))
        lexicon = SHAPES if self.options.domain == "source" else CHEST
        return write(scene or self.scene(index), generator(self.options.seed, "words", pair), lexicon)

    def _attributes(self, index: int, scene: Scene) -> dict[str, object]:
        real = self.plan.reports[index]
        return {
            "findings": findings_of(scene),
            "confounders": list(scene.confounders),
            "text": f"open-i:{real.name}" if real else "grammar",
            "domain": scene.domain,
            "shift": scene.shift,
        }


def findings_of(scene: Scene) -> dict[str, dict[str, object]]:
    """Label -> side, severity, sites and place, as the metadata of a phantom has them."""
    return {
        finding.label: {
            "side": finding.side,
            "severity": finding.severity,
            "sites": [[site.side, site.zone] if finding.zoned else [site.side] for site in finding.sites],
            "place": finding.place or finding.zone,
        }
        for finding in scene.findings
    }

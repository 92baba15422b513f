"""Impressions without pictures: the language that a text tower reads before it meets a U-Net."""

from collections.abc import Callable, Iterator

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from datamodules.datasets import as_it_is
from datamodules.stream import SampleOrder, check_batch_size, micro_batches
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.common.progress import progress_bar
from meddiff.common.ranges import COUNT, COUNT_OR_NONE, check_ranges
from meddiff.models.text.language_heads import SEVERITIES, SIDES, UNASKED, Named, Text, TextBatch
from meddiff.phantoms import PhantomCohort, PhantomOptions
from meddiff.phantoms.mentions import Mention, mentions
from meddiff.shards.access import Access, access_of

#: Chest findings, then the shapes that stand for them: what a disc is and what a heart is are two things to say.
DOMAINS = ("chest", "source")
CLASSES = len(DOMAINS) * len(FINDINGS)


class PhantomTextsDataModule(L.LightningDataModule):
    """Impressions of phantoms that are never rendered, each with what its words say.

    Args:
        chest: impressions of chests: how much of the language a tower reads. 0: never a finding's name.
        shapes: descriptions of the source domain, in the same words for side, size and place.
        open_i: impressions by Open-I's radiologists, out of torchxrayvision. They are read at run time only, and a tower that
            has read them is not to be handed on (CC BY-NC-ND).
        seed: of the texts, another one than any cohort's.
        held_out: impressions of each kind, of another seed, for validation.
        batch_size: texts of one optimiser step over all ranks.

    Raises:
        UserError: nothing to read.
    """

    def __init__(
        self,
        chest: int = 15000,
        shapes: int = 15000,
        open_i: int = 0,
        seed: int = 900,
        held_out: int = 500,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.numbers = {"chest": chest, "shapes": shapes, "open-i": open_i}
        self.seed, self.held_out, self.batch_size = seed, held_out, batch_size
        self.open_i, self.chest, self.shapes = open_i, chest, shapes
        kinds = {**dict.fromkeys(("chest", "shapes", "open_i"), COUNT_OR_NONE), "held_out": COUNT, "batch_size": COUNT}
        check_ranges("texts", self, **kinds)
        if not any(self.numbers.values()):
            raise UserError(
                "texts: chest, shapes and open_i are all 0, so there is nothing to read: give one a number."
            )
        self.texts: list[Text] = []
        self.unread: list[Text] = []

    def cohorts(self) -> list[tuple[str, Access]]:
        """Name and access: phantoms are made here."""
        return [("phantom", access_of("phantom"))]

    @property
    def images_consumed(self) -> int:
        """Texts the optimiser has seen, the x-axis of every curve."""
        return 0 if self.trainer is None else self.trainer.global_step * self.batch_size

    def setup(self, stage: str) -> None:
        """Write the texts: a millisecond each."""
        if self.texts:
            return
        wanted = {name: number for name, number in self.numbers.items() if number}
        total = sum(wanted.values()) + self.held_out * len(wanted)
        shown = self.trainer is None or self.trainer.is_global_zero
        with progress_bar(total, "text", "writing texts", shown) as bar:
            for name, number in wanted.items():
                self.texts += write_texts(name, number, self.seed, bar.update)
                self.unread += write_texts(name, self.held_out, self.seed + 1, bar.update)

    def train_dataloader(self) -> DataLoader[TextBatch]:
        """Endless: the stream of per-epoch permutations, entered where the optimiser is."""
        assert self.trainer is not None
        run, order = self.trainer, SampleOrder(len(self.texts), self.seed)
        share = (run.global_rank, run.world_size, run.accumulate_grad_batches)
        stream = _Stream(self.texts, order, self.batch_size, lambda: self.images_consumed, share)
        return DataLoader(stream, batch_size=None, collate_fn=as_it_is)

    def val_dataloader(self) -> DataLoader[TextBatch]:
        starts = range(0, len(self.unread), self.batch_size)
        unread = [_collate(self.unread[k : k + self.batch_size]) for k in starts]
        return DataLoader(unread, batch_size=None, collate_fn=as_it_is)  # type: ignore[arg-type]  # without a batch size it is given one item


def write_texts(kind: str, number: int, seed: int, on_progress: Callable[[int], object]) -> list[Text]:
    """Impressions of one kind ("chest", "shapes", "open-i") with what they name."""
    domain = "source" if kind == "shapes" else "chest"
    cohort = PhantomCohort(
        PhantomOptions(n=number, seed=seed, domain=domain, text="open-i" if kind == "open-i" else "grammar")
    )
    written = []
    for index in range(number):
        caption, findings = cohort.caption(index)
        named = tuple(_numbers(one, domain) for one in mentions(caption, findings, domain))
        written.append(Text(f"{kind}-{seed}-{index:06d}", caption, named))
        on_progress(1)
    return written


def _numbers(one: Mention, domain: str) -> Named:
    side = UNASKED if one.denied else SIDES.index(one.side)
    severity = SEVERITIES.index(one.severity) if one.severity else UNASKED
    finding = DOMAINS.index(domain) * len(FINDINGS) + FINDINGS.index(one.label)
    return Named(one.start, one.stop, finding, int(one.denied), side, severity)


def _collate(texts: list[Text]) -> TextBatch:
    return {
        "key": [one.key for one in texts],
        "caption": [one.caption for one in texts],
        "named": [one.named for one in texts],
    }


class _Stream(IterableDataset[TextBatch]):
    """Micro-batches of one rank, from where ``position`` says at the moment an iteration begins.

    Args:
        share: this rank, all ranks, accumulated micro-batches.
    """

    def __init__(
        self,
        texts: list[Text],
        order: SampleOrder,
        batch_size: int,
        position: Callable[[], int],
        share: tuple[int, int, int],
    ) -> None:
        check_batch_size(batch_size, *share[1:])
        self.texts, self.order, self.batch_size, self.position = texts, order, batch_size, position
        self.share = share

    def __iter__(self) -> Iterator[TextBatch]:
        start = self.position()
        for places in micro_batches(self.order, self.batch_size, start, *self.share):
            yield _collate([self.texts[sample] for _, sample in places])

"""How far training moved the state of each token, and what a linear probe reads off it: finding, denied or not, side.

States are taken from the text tower alone, for the captions of images; no picture is looked at. Source: own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.findings import FINDINGS
from meddiff.evaluation.linear_probe import Floats, Labels, fit_probe
from meddiff.evaluation.measurement import Row, Value
from meddiff.evaluation.mechanism_maps import mean_row
from meddiff.evaluation.word_roles import ROLES, by_role, pieces, tokens_at
from meddiff.metrics.intervals import mean_interval
from meddiff.metrics.statistics import macro_mean
from meddiff.models.text.tower import TextTower
from meddiff.phantoms.mentions import Mention, mentions
from meddiff.shards.dataset import LatentShardsDataset

#: Captions encoded at a time.
BATCH = 64
#: Where a probe reads: the finding's own word, the end token, the mean over padding, the mean over function words.
POSITIONS = ("finding", "end", "padding", "function")
#: What it is asked, of each finding by itself: does the caption name it, does it deny it, on which side does it lie?
QUESTIONS = ("named", "denied", "side")
#: Times that the answers are shuffled for the control: a probe of one shuffle favours some words by chance.
SHUFFLES = 10
#: Fewer examples of an answer than this, to fit on and to test on, are not asked for.
FEWEST, FEWEST_TESTED = 10, 5


@dataclass(frozen=True)
class Caption:
    """The text of one image.

    Attributes:
        mentions: what the grammar says of its words; None where that is not known.
    """

    key: str
    text: str
    mentions: tuple[Mention, ...] | None = None


def read_captions(split: LatentShardsDataset, limit: int | None = None) -> list[Caption]:
    """The impressions of a split, in the order of their keys."""
    found = []
    for index, key in enumerate(split.keys[:limit]):
        metadata = split.metadata(index)
        attributes, text = metadata["attributes"], metadata["impression"]
        known = {"text", "findings", "domain"} <= attributes.keys()  # a phantom: what is true of it is known
        said = mentions(text, attributes["findings"], attributes["domain"]) if known else None
        found.append(Caption(key, text, said))
    return found


def encoded(tower: TextTower, texts: Sequence[str]) -> Tensor:
    """States (N, L, D) float32 on the CPU."""
    device = tower.token_table.weight.device
    parts = []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            tokens, _ = tower.tokenizer.tokenize(texts[start : start + BATCH])
            parts.append(tower(tokens.to(device)).float().cpu())
    return torch.cat(parts)


# ---- how far ---------------------------------------------------------------------------------------------------------


def moved_rows(tower: TextTower, base: TextTower, captions: Sequence[Caption]) -> list[Row]:
    """One row a role: how far its tokens' states lie from those of the base tower, for the same captions.

    Columns: ``moved`` is the length of the difference over the length of the base's state, ``cosine`` that between the two,
    with intervals over captions; ``apart`` is the reference: the same relative length between the base's states of this role
    in two different captions.
    """
    lengths: dict[str, list[tuple[str, float]]] = {role: [] for role in ROLES}
    cosines: dict[str, list[tuple[str, float]]] = {role: [] for role in ROLES}
    before: dict[str, Tensor] = {}  # role -> mean base state of the caption before
    apart: dict[str, list[float]] = {role: [] for role in ROLES}
    for start in range(0, len(captions), BATCH):
        some = captions[start : start + BATCH]
        texts = [caption.text for caption in some]
        now, then = encoded(tower, texts), encoded(base, texts)  # (B, L, D)
        length = (now - then).norm(dim=-1) / then.norm(dim=-1)  # (B, L)
        cosine = torch.cosine_similarity(now, then, dim=-1)
        for row, caption in enumerate(some):
            for role, weights in by_role(pieces(tower.tokenizer, caption.text)).items():
                lengths[role].append((caption.key, float(length[row] @ weights)))
                cosines[role].append((caption.key, float(cosine[row] @ weights)))
                first = then[row, int(weights.argmax())]
                if role in before:
                    apart[role].append(float((first - before[role]).norm() / before[role].norm()))
                before[role] = first
    rows: list[Row] = []
    for role in ROLES:
        if lengths[role]:
            one, two = mean_row(lengths[role]), mean_row(cosines[role])
            found: dict[str, Value] = {"role": role, "moved": one["value"]}
            found |= {"low": one["low"], "high": one["high"], "n": one["n"]}
            found |= {"cosine": two["value"], "cosine_low": two["low"], "cosine_high": two["high"]}
            rows.append(found | {"apart": float(np.mean(apart[role])) if apart[role] else None})
    return rows


# ---- what can be read off --------------------------------------------------------------------------------------------


@dataclass
class Read:
    """States of captions at the places where a probe reads.

    Attributes:
        shared: position -> (N, D), NaN where a caption has no such token.
        own: caption -> label -> (D,) at the last word that names the finding, where a causal tower has read most of what is
            said of it; not where all of them were cut off.
        drawn: one of the labels in ``own`` for each caption, "" where it has none.
    """

    captions: Sequence[Caption]
    shared: dict[str, Floats]
    own: list[dict[str, Floats]]
    drawn: list[str]


def read_states(tower: TextTower, captions: Sequence[Caption]) -> Read:
    """The states of captions with mentions."""
    tokenizer, found = tower.tokenizer, Read(captions, {}, [], [])
    shared: dict[str, list[Floats]] = {name: [] for name in POSITIONS[1:]}
    for start in range(0, len(captions), BATCH):
        some = captions[start : start + BATCH]
        states = encoded(tower, [caption.text for caption in some]).double()  # (B, L, D)
        for caption, state in zip(some, states, strict=True):
            roles = by_role(pieces(tokenizer, caption.text))
            for name, rows in shared.items():
                weights = roles.get(name)
                rows.append(np.full(state.shape[1], np.nan) if weights is None else (weights.double() @ state).numpy())
            own: dict[str, Floats] = {}
            for mention in caption.mentions or ():
                weights = tokens_at(tokenizer, caption.text, mention.start, mention.stop)
                if weights.any():
                    own[mention.label] = (weights.double() @ state).numpy()
            found.own.append(own)
            place = int(generator(0, "other word", caption.key).integers(max(len(own), 1)))
            found.drawn.append(sorted(own)[place] if own else "")
    found.shared = {name: np.array(rows) for name, rows in shared.items()}
    return found


@dataclass
class Examples:
    """What a probe for one finding is fitted or tested on: states (N, D), answers, and the captions they are from."""

    states: Floats
    answers: list[str]
    keys: list[str]


def examples(read: Read, position: str, question: str, label: str) -> Examples:
    """The same captions and answers whatever the position, less those that have no such token.

    To ``named`` the own word of a caption that does not name the finding is a drawn one of the findings that it does name;
    captions that name none are left out everywhere.
    """
    states, answers, keys = [], [], []
    for place, (caption, own) in enumerate(zip(read.captions, read.own, strict=True)):
        answer = _answer(caption, question, label)
        word = read.drawn[place] if (question, answer) == ("named", "no") else label
        if answer is None or word not in own:
            continue
        state = own[word] if position == "finding" else read.shared[position][place]
        if np.isfinite(state).all():
            states.append(state)
            answers.append(answer)
            keys.append(caption.key)
    return Examples(np.array(states), answers, keys)


def _answer(caption: Caption, question: str, label: str) -> str | None:
    """What is true of a finding in a caption; None where the question does not arise."""
    first = next((one for one in caption.mentions or () if one.label == label), None)
    if question == "named":
        return "no" if first is None else "yes"
    if first is None:
        return None
    if question == "denied":
        return "yes" if first.denied else "no"
    return None if first.denied else first.side or None


def probe_rows(
    tower: TextTower,
    fit_on: Sequence[Caption],
    test_on: Sequence[Caption],
    told: Callable[[int], object] | None = None,
) -> list[Row]:
    """One row a question, position and control: the balanced accuracy of probes over findings, and its interval.

    Control "" is the measurement; "shuffled" the mean of :data:`SHUFFLES` times the same with the answers of the training
    captions exchanged among them, which must come out at ``chance``. A probe is fitted for each finding by itself; the
    accuracy is the mean over (finding, answer) of the share that is right, ``chance`` that of guessing. Captions that
    training has too are left out of the test.

    Args:
        fit_on, test_on: captions with mentions.
        told: called with 1 after each row.
    """
    known = {caption.text for caption in fit_on}
    reads = read_states(tower, fit_on), read_states(tower, [one for one in test_on if one.text not in known])
    rows: list[Row] = []
    for question in QUESTIONS:
        for position in POSITIONS:
            for control in ("", "shuffled"):
                rows.append({"question": question, "position": position, "control": control} | _probed(
                    *reads, question, position, shuffled=bool(control)
                ))  # fmt: skip
                if told is not None:
                    told(1)
    return rows


def _probed(train: Read, test: Read, question: str, position: str, shuffled: bool) -> dict[str, Value]:
    right: list[Floats] = []  # of each finding (S, N), a row a shuffle
    keys: list[str] = []
    cells: list[str] = []
    for label in FINDINGS:
        fit, held = (examples(read, position, question, label) for read in (train, test))
        answers = [
            name
            for name in sorted(set(fit.answers))
            if fit.answers.count(name) >= FEWEST and held.answers.count(name) >= FEWEST_TESTED
        ]
        if len(answers) < 2:
            continue
        states, numbers, _ = _only(fit, answers)
        tested, wanted, names = _only(held, answers)
        given = [numbers]
        if shuffled:
            draw = generator(0, "shuffled answers", question, label)
            given = [numbers[draw.permutation(len(numbers))] for _ in range(SHUFFLES)]
        right.append(np.array([fit_probe(states, some).predict(tested) == wanted for some in given], float))
        keys += names
        cells += [f"{label}: {answers[number]}" for number in wanted]
    if not right:
        return {"accuracy": None, "low": None, "high": None, "chance": None, "findings": 0, "n": 0}
    values = np.concatenate(right, axis=1)  # (S, N)
    if shuffled:
        means = np.array([[macro_mean(row[None], cells)[0] for row in values]])
        ends = mean_interval(means, range(len(values)))  # over shuffles: captions are the same in all of them
    else:
        ends = mean_interval(values, keys, cells, share=True)
    return {
        "accuracy": float(macro_mean(values, cells)[0]),
        **{name: end if math.isfinite(end) else None for name, end in zip(("low", "high"), ends, strict=True)},
        "chance": len(right) / len(set(cells)),
        "findings": len(right),
        "n": len(cells),
    }


def _only(found: Examples, answers: Sequence[str]) -> tuple[Floats, Labels, list[str]]:
    """States, numbers of the answers and captions of the examples with one of ``answers``."""
    rows = [place for place, answer in enumerate(found.answers) if answer in answers]
    numbers = np.array([answers.index(found.answers[place]) for place in rows], np.int64)
    return found.states[rows], numbers, [found.keys[place] for place in rows]

"""A link between a word and a place, planted in the attention maps, is what ``words`` and Table 6 find; and only that."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from meddiff.attribution.words import QUERY_WORDS
from meddiff.evaluation.grounding import SOS, score_item, text_item
from meddiff.evaluation.samples import grounding_samples
from meddiff.evaluation.words import word_result
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.reports.paper.build import build_tables
from meddiff.runs.evaluations import EvaluationWriter
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.tiny import make_shards


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, vae_folder: Path) -> LatentShardsDataset:
    folder = make_shards(
        tmp_path_factory.mktemp("planted") / "s", vae_folder, n=60, val=2, grounding=50, fidelity=2, normal=0.0
    )
    return LatentShardsDataset(folder, "grounding")


def evaluate(dataset: LatentShardsDataset, out: Path, planted: str, shift: int = 0) -> dict[str, float]:
    """Maps of noise for every word, but ``planted`` lights up the box (of the sample ``shift`` places on).

    Returns:
        word -> mean CNR over ``words.csv``'s first-piece rows, of words seen at least 5 times.
    """
    queries = dict(QUERY_WORDS)
    samples, _ = grounding_samples(dataset, list(queries))
    entries = []
    for place, sample in enumerate(samples):
        item = text_item(ClipTokenizer(), sample, queries, "phrase", full=True)
        heat = torch.rand(len(item.groups), 16, 16, generator=torch.Generator().manual_seed(place))
        lit = samples[(place + shift) % len(samples)]
        box = torch.from_numpy(replace(lit, boxes=lit.boxes).box_mask()).float()
        box = torch.nn.functional.interpolate(box[None, None], size=(16, 16), mode="area")[0, 0]
        for group, (word, _) in enumerate(item.names, start=SOS + 1):
            if word.strip(".,").lower() == planted:
                heat[group] += 3.0 * box
        entries.append(score_item(item, heat, dataset, ClipTokenizer(), queries))
    table = word_result(entries).tables["words"]
    about = {"model": "planted", "run": str(out), "images": 0, "seed": 0, "freeze_text_encoder": True}
    writer = EvaluationWriter(out, {**about, "prompt": "impression", "cohort": "phantom"})
    writer.table("words", table.rows, table.first)
    writer.part("words", {}, {})
    found: dict[str, list[float]] = {}
    for row in read_table(out / "words.csv"):
        if row["variant"] == "first":
            found.setdefault(row["word"].strip(".,").lower(), []).append(float(row["cnr"]))
    return {word: sum(values) / len(values) for word, values in found.items() if len(values) >= 5}


@pytest.fixture(scope="module")
def left(dataset: LatentShardsDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The evaluation in which "left" lights up its own box: folder, mean CNR of words."""
    out = tmp_path_factory.mktemp("left")
    return out, evaluate(dataset, out, "left")


@pytest.mark.parametrize("planted", ["left", "right"])
def test_the_planted_word_is_found_and_no_other(
    dataset: LatentShardsDataset, left: tuple[Path, dict[str, float]], tmp_path: Path, planted: str
) -> None:
    means = left[1] if planted == "left" else evaluate(dataset, tmp_path, planted)
    best = max(means, key=lambda word: means[word])
    assert best == planted
    assert means[best] > 1.0
    assert max(value for word, value in means.items() if word != planted) < 0.5 * means[planted]


def test_a_link_to_another_image_s_place_is_not_taken_for_one(
    dataset: LatentShardsDataset, left: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    """The control: the same light, in the box of another sample."""
    shuffled = evaluate(dataset, tmp_path, "left", shift=7)
    assert shuffled["left"] < 0.5 * left[1]["left"]


def test_table_6_ranks_it_first(left: tuple[Path, dict[str, float]]) -> None:
    table = next(table for table in build_tables([left[0]], min_occurrences=2) if table.name == "table6")
    mine = 3  # pieces, class, rank, then the one model that was evaluated
    winners = [dict(row[mine].remarks).get("word", "") for row in table.rows if row[2].value in (1, "1")]
    assert any(word.strip(".,").lower() == "left" for word in winners), winners

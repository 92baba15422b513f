"""Table 2 on made-up shards: which samples there are, one map per class, and the averages."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from meddiff.attribution.coco_words import class_tokens
from meddiff.attribution.grounding_pass import GroundingItem, grounding_pass, mean_over_timesteps, paper_timesteps
from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.evaluation.coco import Coco, CocoOptions, coco_samples, coco_summary
from meddiff.evaluation.measurement import Row
from meddiff.evaluation.samples import evaluation_latents
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.text.clip_tokenizer import ClipTokenizer
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.sample import CohortSample
from meddiff.shards.writer import ShardWriter
from tests.builders.drawn_parts import make_model, run_part
from tests.builders.shard_samples import CHANNELS, PIXELS, SIDE, make_header

TOKENIZER = ClipTokenizer()

PAIR = "Cars pass two dogs at the traffic light"
CAPTIONS = {
    "000001": [PAIR, "A dog beside a carrot", "Nothing much"],
    "000002": ["people with hot dogs", "a dog"],
}
#: image -> instance masks of its classes: rows of the picture, several instances of a class are one union.
SHOWN: dict[str, dict[str, list[slice]]] = {
    "000001": {"car": [slice(0, 6)], "dog": [slice(8, 12), slice(20, 24)], "traffic light": [slice(28, 32)]},
    "000002": {"person": [slice(4, 20)], "hot dog": []},
}


def union(parts: list[slice]) -> np.ndarray:
    mask = np.zeros((PIXELS, PIXELS), bool)
    for rows in parts:
        mask[rows, 4:20] = True
    return mask


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> LatentShardsDataset:
    folder = tmp_path_factory.mktemp("coco") / "shards"
    writer = ShardWriter(folder, make_header(cohort="coco"), 8)
    pairs = []
    for key, captions in CAPTIONS.items():
        masks = {label: union(parts) for label, parts in SHOWN[key].items()}
        image = np.zeros((PIXELS, PIXELS, 3), np.uint8)
        sample = CohortSample(key, image, captions[0], list(masks), "grounding", key, captions=captions, masks=masks)
        draw = generator("coco test", key).standard_normal((2 * CHANNELS, SIDE, SIDE)).astype(np.float32)
        pairs.append((sample, draw))
    writer.write("grounding", pairs)
    writer.finish()
    return LatentShardsDataset(folder, "grounding")


@pytest.fixture(scope="module")
def model(vae_folder: Path) -> LatentDiffusion:
    model = make_model(vae_folder)
    with torch.no_grad():  # a random tower barely tells words apart
        model.text_encoder.token_embedding.weight.mul_(30)
    return model


def options(batch_size: int = 64) -> CocoOptions:
    return CocoOptions(timesteps=3, batch_size=batch_size)


def test_every_class_a_caption_names_and_its_image_shows_is_a_sample(split: LatentShardsDataset) -> None:
    found, excluded = coco_samples(split)
    assert [(one.key, one.number, one.label) for one in found] == [
        ("000001", 0, "car"),
        ("000001", 0, "traffic light"),
        ("000001", 0, "dog"),
        ("000001", 1, "dog"),
        ("000002", 0, "person"),
    ]
    assert {(one.key, one.label, one.reason.split()[0]) for one in excluded} == {
        ("000001", "carrot", "no"),  # named, not shown
        ("000001", "", "the"),  # "Nothing much"
        ("000002", "hot dog", "no"),  # its mask is empty
        ("000002", "dog", "no"),
    }


def test_published_substrings_name_more_and_less(split: LatentShardsDataset) -> None:
    found, _ = coco_samples(split, "paper")
    assert [
        (one.number, one.label, class_tokens(TOKENIZER, one.caption, one.label, "paper").is_fallback)
        for one in found
        if one.key == "000001"
    ] == [
        (0, "car", False),
        (0, "traffic light", True),
        (0, "dog", False),
        (1, "car", False),  # out of "carrot"
        (1, "dog", False),
    ]
    assert "person" not in {one.label for one in found}, "'people' is no substring of it"


def test_a_class_is_scored_on_its_own_map_and_the_union_of_its_instances(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    run_part(Coco(options()), model, split, tmp_path)
    rows = list(csv.DictReader((tmp_path / "coco.csv").open()))
    for label in ("car", "dog", "traffic light"):  # each alone, in a pass of its own
        item = GroundingItem(
            "000001", evaluation_latents(split, 0, 0), PAIR, class_tokens(TOKENIZER, PAIR, label).weights[None]
        )
        ((_, heat),) = mean_over_timesteps(grounding_pass(model, [item], paper_timesteps(3)), 3)
        full = F.interpolate(heat[None], size=(PIXELS, PIXELS), mode="bilinear")[0, 0].double().numpy()
        mask = union(SHOWN["000001"][label])
        inside, outside = full[mask], full[~mask]
        cnr = (inside.mean() - outside.mean()) / math.sqrt(inside.var(ddof=1) + outside.var(ddof=1))
        (row,) = [one for one in rows if (one["key"], one["class"], one["phrase"]) == ("000001", label, PAIR)]
        assert float(row["cnr"]) == pytest.approx(cnr, rel=1e-3)
    assert len({row["cnr"] for row in rows}) == len(rows), "equal maps would hide one that was mixed with another"


def test_a_stopped_evaluation_goes_on_and_says_the_same(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path
) -> None:
    whole = run_part(Coco(options(batch_size=4)), model, split, tmp_path / "whole")
    run_part(Coco(options()), model, split, tmp_path / "part")
    ledger = tmp_path / "part" / "coco.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:2]) + lines[2][:10])
    again = run_part(Coco(options()), model, split, tmp_path / "part")
    assert again == pytest.approx(whole, rel=1e-4, abs=1e-6)
    assert (tmp_path / "part" / "coco_excluded.csv").read_text().count("no instance") == 3


def test_captions_then_images_then_classes_are_averaged() -> None:
    def row(key: str, label: str, cnr: float | None) -> Row:
        return {"key": key, "class": label, "cnr": cnr, "auroc": 0.5, "top1": 1.0, "miou": 0.2}

    rows = [row("a", "dog", 1.0), row("a", "dog", 3.0), row("a", "dog", None), row("b", "dog", 8.0)]
    rows += [row("a", "tie", 1.0), row("c", "car", None)]
    summary = coco_summary(rows)
    assert summary["dog/cnr"] == pytest.approx((2 + 8) / 2)
    assert summary["macro_cnr"] == pytest.approx((5 + 1) / 2)
    assert summary["cnr"] == pytest.approx((2 + 8 + 1) / 3)
    assert (summary["n"], summary["excluded"], summary["captions"]) == (3, 1, 6)


def test_a_cohort_without_classes_is_refused(shards: Path) -> None:
    with pytest.raises(UserError, match="no MS-COCO caption"):
        coco_samples(LatentShardsDataset(shards, "grounding"))

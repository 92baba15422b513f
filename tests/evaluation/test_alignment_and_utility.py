"""Alignment and utility with planted generators: one that gives the prompt's own real images, one that ignores its prompt."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.common.findings import FINDINGS
from meddiff.common.places import locate
from meddiff.evaluation import utility as utility_module
from meddiff.evaluation.alignment import JUDGE, Alignment, alignment_result
from meddiff.evaluation.alignment_cosine import CosineReader
from meddiff.evaluation.alignment_options import AlignmentOptions
from meddiff.evaluation.classifier import Judge
from meddiff.evaluation.ranks import Ranks
from meddiff.evaluation.utility import Utility
from meddiff.evaluation.utility_arms import ARMS, Pictures, Recipe, batches, macro, plan, shuffled_labels, train_arm
from meddiff.evaluation.utility_options import UtilityOptions
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.runs.tables import read_table
from meddiff.shards.dataset import LatentShardsDataset
from tests.builders.biovil import make_biovil
from tests.builders.drawn_parts import QUICK, make_model, run_part, stamps
from tests.builders.planted_generators import Planted, decoded_bytes, drawing
from tests.builders.tiny import make_shards

N, TRAIN, CPU = 14, 10, torch.device("cpu")
SMALL = UtilityOptions(
    samples=TRAIN,
    seeds=2,
    steps=3,
    classifier_batch=8,
    side=32,
    checks=1,
    fewest=2,
    sampling=QUICK,
    network={"growth_rate": 4, "block_config": [1, 1], "num_init_features": 8},
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vae = locate("assets/phantom_vae")
    return make_shards(
        tmp_path_factory.mktemp("cohort") / "phantom", vae, n=TRAIN + 2 * N + 8, val=6, grounding=2, fidelity=2 * N
    )


@pytest.fixture(scope="module")
def split(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "fidelity")


@pytest.fixture(scope="module")
def train(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "train")


@pytest.fixture(scope="module")
def held(shards: Path) -> LatentShardsDataset:
    return LatentShardsDataset(shards, "val")


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return make_model(locate("assets/phantom_vae"))


def real_images(model: LatentDiffusion, split: LatentShardsDataset, blind: bool = False) -> Planted:
    """A generator that gives the real image of each prompt, or whatever the prompt, another one's."""
    images = decoded_bytes(model, split)
    order = generator(0, "planted").permutation(len(split)) if blind else range(len(split))
    place = dict(zip(split.keys, order, strict=True))
    return lambda keys: images[[int(place[key]) for key in keys]]


def test_who_ignores_the_prompt_agrees_with_it_by_chance_and_who_follows_it_like_real_images(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AlignmentOptions(sampling=QUICK)
    drawing(model, real_images(model, split), monkeypatch)
    follows = run_part(Alignment(options), model, split, tmp_path / "follows")
    drawing(model, real_images(model, split, blind=True), monkeypatch)
    blind = Alignment(options).run(model, split, None, Ranks()).figures
    for kind in ("auroc", "pearson", "agreement", "retrieval"):
        name = f"alignment_classifier_{kind}"
        assert follows[name] == pytest.approx(follows[f"real_decoded/{name}"]), "they are the same images"
        assert blind[f"real/{name}"] == pytest.approx(follows[f"real/{name}"])
        assert blind[name] != pytest.approx(blind[f"real_decoded/{name}"])
    rows = {row["control"]: row for row in read_table(tmp_path / "follows" / "alignment.csv")}
    assert list(rows) == ["", "real", "real_decoded", "shuffled"]
    assert float(rows[""]["low"]) < follows["alignment_classifier_auroc"] < float(rows[""]["high"])
    assert float(rows["shuffled"]["chance"]) == pytest.approx(follows["alignment_retrieval_chance"])
    of_classes = read_table(tmp_path / "follows" / "alignment_classes.csv")
    assert {row["class"] for row in of_classes} == set(FINDINGS)
    kept = stamps(tmp_path / "follows" / "images" / "alignment")
    assert len(kept) == N


def test_logits_that_know_the_prompt_are_far_from_chance_in_all_four_numbers_and_blind_ones_are_not() -> None:
    judge = Judge(("a", "b", "c"), lambda images: images)
    rng = np.random.default_rng(0)
    labels, others = (torch.from_numpy(rng.random((200, 3)) < [0.1, 0.3, 0.5]) for _ in range(2))
    noise = torch.from_numpy(rng.normal(size=(200, 3)))
    keys = [f"k{i}" for i in range(200)]

    def figures(shown: torch.Tensor) -> dict[str, float]:
        found = {name: {JUDGE: 4.0 * one - 2 + noise} for name, one in (("", shown), ("real", labels))}
        found |= {"real_decoded": found["real"], "reference": {JUDGE: 4.0 * others - 2 - noise}}
        return alignment_result(found, judge, labels, others, keys, AlignmentOptions()).figures

    follows, blind, healthy = figures(labels), figures(labels.roll(77, 0)), figures(torch.zeros_like(labels))
    for kind, chance in (("auroc", 0.5), ("agreement", 0.5), ("retrieval", follows["alignment_retrieval_chance"])):
        name = f"alignment_classifier_{kind}"
        assert follows[name] > chance + 0.25
        assert abs(follows[f"shuffled/{name}"] - chance) < 0.05
        assert abs(blind[name] - chance) < 0.12
        assert abs(healthy[name] - chance) < 0.12, "healthy lungs for everybody"
    name = "alignment_classifier_pearson"
    assert follows[name] > 0.8
    assert 0.05 < follows[f"shuffled/{name}"] < 0.4, "above 0: some findings are common"
    assert blind[name] == pytest.approx(blind[f"shuffled/{name}"], abs=0.2)


@pytest.mark.parametrize("prompts", ["own", "other"])
def test_the_cosine_of_image_and_prompt_stands_beside_that_of_each_others_prompts(
    prompts: str, split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_biovil(tmp_path)
    texts = {key: "bright" if i % 2 else "dark" for i, key in enumerate(split.keys)}
    order = split.keys if prompts == "own" else split.keys[1:] + split.keys[:1]
    asked = dict(zip(split.keys, order, strict=True))

    def metadata(index: int) -> dict[str, object]:
        key = split.keys[index]
        return {**kept(index), "impression": texts[key], "labels": ["Edema"] if texts[key] == "bright" else []}

    def half(keys: Sequence[str]) -> NDArray[np.uint8]:  # as bright as asked for, and black and white somewhere
        side = split.manifest.resolution
        found = np.zeros((len(keys), side, side, 3), np.uint8)
        for image, key in zip(found, keys, strict=True):
            image[: side * 3 // 4 if texts[asked[key]] == "bright" else side // 4] = 255
        return found

    kept = split.metadata
    monkeypatch.setattr(split, "metadata", metadata)
    drawing(model, half, monkeypatch)
    options = AlignmentOptions(sampling=QUICK, biovil_t=str(folder), candidates=4)
    result = Alignment(options).run(model, split, None, Ranks())
    # of the 448 rows that are shown, the ones after the first 32 of 512, 352 are as asked: a cosine with one of two axes
    right, wrong = (rows / math.hypot(352, 96) for rows in (352, 96))
    own, shuffled = (result.figures[f"{which}alignment_biovil_t"] for which in ("", "shuffled/"))
    first = result.figures["alignment_biovil_t_retrieval"]
    assert result.figures["alignment_biovil_t_chance"] == pytest.approx(1 / 4)
    if prompts == "own":
        assert own == pytest.approx(right, abs=0.02)
        assert first == 1
        assert shuffled < own - 0.2
    else:
        assert own == pytest.approx(wrong, abs=0.02)
        assert first == 0
    shown = result.controls["shuffled"]
    assert isinstance(shown, dict)
    assert shown["alignment_biovil_t"] == pytest.approx(shuffled)
    rows = {row["control"]: row for row in result.tables["alignment"].rows}
    assert rows[""]["cosine"] == pytest.approx(own)
    assert rows["real"]["cosine"] == pytest.approx(result.figures["real/alignment_biovil_t"])


def test_an_image_that_is_no_number_has_no_cosine(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64).expand(2, 3, 64, 64).clone()
    images[1, 0, 3, 4] = torch.nan
    found = CosineReader(make_biovil(tmp_path), CPU).images(images)
    assert found.isfinite().all(dim=1).tolist() == [True, False]


def test_prompts_that_the_text_encoder_does_not_read_are_refused_before_anything_is_drawn(
    split: LatentShardsDataset, model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = split.metadata
    monkeypatch.setattr(split, "metadata", lambda index: {**kept(index), "impression": "bright " * 600})
    options = AlignmentOptions(sampling=QUICK, biovil_t=str(make_biovil(tmp_path)))
    with pytest.raises(UserError, match=r"14 of 14 prompts .* more than 512 tokens"):
        Alignment(options).run(model, split, None, Ranks())


def planted_pictures(n: int, seed: int, blind: bool = False) -> Pictures:
    """Noise with one finding that makes it brighter and one that makes it striped; or findings that show nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 2)) < 0.4
    seen = rng.random((n, 2)) < 0.4 if blind else labels
    stripes = np.resize([1.0, -1.0], 16)[None, :]
    images = rng.normal(0, 0.2, (n, 16, 16)) + 0.3 * seen[:, 0, None, None] + 0.3 * seen[:, 1, None, None] * stripes
    return Pictures(torch.from_numpy(images[:, None]).half().clamp(-1, 1), torch.from_numpy(labels))


def test_each_arm_learns_what_its_images_hold_and_nothing_else() -> None:
    network = {"growth_rate": 4, "block_config": [1, 1], "num_init_features": 8}
    recipe = Recipe(network, ("bright", "striped"), steps=20, batch=16, learning_rate=1e-2, checks=2)
    real, test, held = (planted_pictures(n, seed) for n, seed in ((96, 0), (120, 1), (60, 2)))
    blind = planted_pictures(96, 3, blind=True)
    sources = {"real": real, "synthetic": Pictures(blind.images, real.labels)}  # labels of the prompts

    def area(arm: str, seed: int) -> float:
        return macro(train_arm(arm, seed, recipe, sources, held, test, CPU).scores, test.labels)

    found = {
        arm: train_arm(arm, 0, recipe, sources, held, test, CPU) for arm in ARMS if arm not in ("synthetic", "shuffled")
    }
    assert min(macro(one.scores, test.labels) for one in found.values()) > 0.9
    for arm in ("synthetic", "shuffled"):  # one alone may be far from chance, to either side
        assert abs(sum(area(arm, seed) for seed in range(2)) / 2 - 0.5) < 0.35
    assert found["synthetic_then_real"].step > 10, "chosen while it sees real images"
    same = train_arm("synthetic", 0, recipe, {"real": real, "synthetic": real}, held, test, CPU)
    assert torch.equal(same.scores, found["real"].scores), "real images in the place of drawn ones are the real arm"


def test_all_arms_take_as_many_steps_where_epochs_would_give_more_images_more_steps() -> None:
    assert {arm: sum(steps for _, steps in plan(arm, 201)) for arm in ARMS} == {
        **dict.fromkeys(ARMS, 201),
        "real_twice": 402,
    }
    epochs, images, batch = 15, 320, 32
    by_epochs = {"real": epochs * images // batch, "real_and_synthetic": epochs * 2 * images // batch}
    assert by_epochs["real_and_synthetic"] == 2 * by_epochs["real"], "the published way"
    places = np.concatenate([places for _, places in batches(0, "real", 0, 10, 40, 8)])
    assert [sorted(places[:40]), sorted(places[40:])] == [list(range(40))] * 2, "each image once before any comes again"
    whole = [places for _, places in batches(0, "real", 0, 6, 40, 8)]
    rest = [places for _, places in batches(0, "real", 4, 2, 40, 8)]
    assert all((a == b).all() for a, b in zip(whole[4:], rest, strict=True))
    both = next(batches(0, "both", 0, 1, 40, 8))[1]
    assert (both[:4] == whole[0][:4]).all()
    labels = planted_pictures(50, 0).labels
    assert torch.equal(shuffled_labels(labels, 0).sum(dim=0), labels.sum(dim=0))
    assert not torch.equal(shuffled_labels(labels, 0), labels)


def test_utility_goes_on_where_it_was_stopped_and_real_images_as_drawn_ones_are_the_real_arm(
    split: LatentShardsDataset,
    train: LatentShardsDataset,
    held: LatentShardsDataset,
    model: LatentDiffusion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing(model, real_images(model, train), monkeypatch)
    measurement = Utility(SMALL, train, held)
    plain, trained = utility_module.train_arm, []

    def stopped(arm: str, seed: int, *rest: object) -> object:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append((arm, seed))
        return plain(arm, seed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(utility_module, "train_arm", stopped)
    with pytest.raises(KeyboardInterrupt):
        measurement.run(model, split, tmp_path, Ranks())
    trained.clear()
    monkeypatch.setattr(utility_module, "train_arm", lambda *a: trained.append(a[:2]) or plain(*a))
    found = run_part(measurement, model, split, tmp_path)
    assert trained == measurement.units()[4:]
    assert found["utility_synthetic_auroc"] == found["utility_real_auroc"]
    assert found["utility_gain_synthetic"] == 0
    assert (found["n_train"], found["n_test"], found["seeds"], found["shared_patients"]) == (TRAIN, 2 * N, 2, 0)
    rows = {row["arm"]: row for row in read_table(tmp_path / "utility.csv")}
    assert list(rows) == list(ARMS)
    assert {arm: float(row["steps"]) for arm, row in rows.items()} == {**dict.fromkeys(ARMS, 3), "real_twice": 6}
    assert float(rows["real_and_synthetic"]["gain"]) == pytest.approx(found["utility_gain"], abs=1e-6)
    runs = read_table(tmp_path / "utility_runs.csv")
    assert [(row["arm"], int(float(row["classifier_seed"]))) for row in runs if row["arm"] == "real"] == [
        ("real", 0),
        ("real", 1),
    ]
    first_real = float(next(row["auroc"] for row in runs if row["arm"] == "real"))

    trained.clear()
    assert (
        run_part(Utility(replace(SMALL, fewest=3), train, held), model, split, tmp_path)["classes"] <= found["classes"]
    )
    assert not trained, "neither classes nor the number of seeds need another training"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "utility.jsonl").write_bytes((tmp_path / "utility.jsonl").read_bytes())
    drawing(model, real_images(model, train, blind=True), monkeypatch)
    other = Utility(replace(SMALL, seeds=1), train, held).run(model, split, tmp_path / "other", Ranks()).figures
    assert [arm for arm, _ in trained] == ["synthetic", "real_and_synthetic", "synthetic_then_real"], (
        "what saw none of the drawn images is taken over"
    )
    assert other["utility_real_auroc"] == pytest.approx(first_real, abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "utility.jsonl").read_text().splitlines()[1:]]
    assert len(lines) == len(measurement.units())


def test_what_cannot_be_measured_is_told_in_a_sentence(
    split: LatentShardsDataset,
    train: LatentShardsDataset,
    held: LatentShardsDataset,
    model: LatentDiffusion,
    tmp_path: Path,
) -> None:
    cases = [
        (Alignment(AlignmentOptions(samples=N + 1)), "twice as many images"),
        (Alignment(AlignmentOptions(classifier="nowhere")), "No classifier at nowhere"),
        (Utility(SMALL, None, held), "no training images"),
        (Utility(SMALL, train, None), "no split 'val' to choose by"),
        (Utility(SMALL, train, split), "choose by another one"),
        (Utility(replace(SMALL, samples=TRAIN + 1), train, held), f"there are {TRAIN} training images"),
        (Utility(replace(SMALL, fewest=N), train, held), "set fewest lower"),
        (Utility(replace(SMALL, network={"growth": 3}), train, held), "no network of"),
        (Utility(replace(SMALL, initial="nowhere.safetensors"), train, held), "no weights at nowhere"),
    ]
    for measurement, sentence in cases:
        with pytest.raises(UserError, match=sentence) as error:
            measurement.run(model, split, tmp_path, Ranks())
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="real is always one"):
        UtilityOptions(arms=["synthetic"])
    with pytest.raises(UserError, match="steps"):
        UtilityOptions(steps=0)

"""Classes of MS-COCO in captions: whole words and plurals, and the substrings of the published code."""

import json

import pytest

from meddiff.attribution.coco_words import class_tokens
from meddiff.common.coco_classes import COCO_CLASSES, class_words, classes_in
from meddiff.common.errors import UserError
from meddiff.models.text.clip_tokenizer import CONTEXT_LENGTH, ClipTokenizer
from tests.builders.readings import SHARED

TOKENIZER = ClipTokenizer()

REAL = SHARED / "coco_mini" / "annotations"


@pytest.mark.parametrize(
    ("caption", "standard", "paper"),
    [
        ("A carrot on a plate.", ["carrot"], ["car", "carrot"]),
        ("Cars pass a parked car.", ["car"], ["car"]),
        ("A boat is tied to a tree", ["boat"], ["boat", "tie"]),
        ("Men in ties", ["tie"], ["tie"]),
        ("The bench, located near a road.", ["bench"], ["bench", "cat"]),
        ("Two cats!", ["cat"], ["cat"]),
        ("A group of people near some sheep", ["person", "sheep"], ["sheep"]),
        ("One person and three persons", ["person"], ["person"]),
        ("Mice gnaw at the knives", ["knife", "mouse"], []),
        ("busses and buses", ["bus"], ["bus"]),
        ("sandwiches on couches and benches", ["bench", "sandwich", "couch"], ["bench", "sandwich", "couch"]),
        ("a pair of skis leans on the ski lift", ["skis"], ["skis"]),
        ("A ski slope.", [], []),
        ("Scissors, broccoli and wine glasses", ["wine glass", "broccoli", "scissors"], ["wine glass", "broccoli", "scissors"]),
        ("TRAFFIC LIGHTS over a Stop-Sign", ["traffic light", "stop sign"], ["traffic light"]),
        ("heavy traffic and a light rain", [], []),
        ("traffic  lights", ["traffic light"], []),  # two blanks
        ("It is hot, dogs lie about", ["dog"], ["dog"]),
        ("a hot dog, eaten", ["hot dog"], ["dog", "hot dog"]),
        ("doughnuts beside hotdogs", ["hot dog", "donut"], ["dog"]),
        ("the dog's teddy bears", ["dog", "teddy bear"], ["bear", "dog", "teddy bear"]),
        ("a teddy bear looks at a bear", ["bear", "teddy bear"], ["bear", "teddy bear"]),
        ("a man throws a sports ball", ["sports ball"], ["sports ball"]),
        ("a ball", [], []),
        ("a bearded man with a beard, bedside", [], ["bear", "bed"]),
        ("handbags_and_suitcases", ["handbag", "suitcase"], ["handbag", "suitcase"]),
        ("", [], []),
    ],
)  # fmt: skip
def test_classes_of_a_caption(caption: str, standard: list[str], paper: list[str]) -> None:
    assert sorted(classes_in(caption)) == sorted(standard)
    assert sorted(classes_in(caption, "paper")) == sorted(paper)


def test_every_class_is_found_by_each_of_its_words_and_nothing_else_is() -> None:
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    for label in COCO_CLASSES:
        assert class_words(label)[0] == label
        for word in class_words(label):
            assert classes_in(f"There: {word}.") == (label,), word
    owners = [word for label in COCO_CLASSES for word in class_words(label)]
    assert len(set(owners)) == len(owners), "a word that asks for two classes"


def test_both_words_of_a_class_and_all_mentions_weigh_alike() -> None:
    caption = "A traffic light hangs near three traffic lights"
    words = TOKENIZER.words(caption)
    query = class_tokens(TOKENIZER, caption, "traffic light")
    assert query.words == ("traffic", "light", "traffic", "lights")
    assert query.weights.sum() == pytest.approx(1.0)
    for place in (1, 2, 6, 7):
        assert query.weights[words[place].start : words[place].stop].sum() == pytest.approx(1 / 4)
    mixed = class_tokens(TOKENIZER, "hotdogs and a hot dog", "hot dog")  # one word against two: the mentions are equals
    first = TOKENIZER.words("hotdogs and a hot dog")[0]
    assert mixed.weights[first.start : first.stop].sum() == pytest.approx(1 / 2)


def test_glued_punctuation_belongs_to_the_word_and_pieces_share() -> None:
    caption = "Look: giraffes, and the giraffe's shadow"
    query = class_tokens(TOKENIZER, caption, "giraffe")
    assert query.words == ("giraffes,", "giraffe's")
    for word in TOKENIZER.words(caption):
        share = 1 / 2 if "giraffe" in word.text else 0.0
        assert query.weights[word.start : word.stop].sum() == pytest.approx(share)


def test_the_published_rule_never_finds_two_words_and_falls_back_to_all() -> None:
    caption = "A traffic light above cars"
    query = class_tokens(TOKENIZER, caption, "traffic light", "paper")
    assert query.is_fallback
    stop = len(TOKENIZER.ids(caption)) - 1
    assert query.weights[1:stop].tolist() == pytest.approx([1 / (stop - 1)] * (stop - 1))
    assert query.weights[stop:].sum() == query.weights[0] == 0
    assert class_tokens(TOKENIZER, "A carrot", "car", "paper").words == ("carrot",)
    assert class_tokens(TOKENIZER, "A carrot", "car").is_fallback


def test_words_beyond_the_context_are_reported() -> None:
    caption = "a dog " + "very " * 73 + "near dogs and dogs"
    query = class_tokens(TOKENIZER, caption, "dog")
    assert query.truncated == ("dogs", "dogs")
    assert query.weights.sum() == pytest.approx(1.0)
    assert query.weights.nonzero().flatten().tolist() == [2]
    gone = class_tokens(TOKENIZER, "word " * CONTEXT_LENGTH + "hot dogs", "hot dog")
    assert gone.truncated == ("hot", "dogs")
    assert not gone.weights.any()


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(UserError, match="no class of MS-COCO"):
        class_tokens(TOKENIZER, "a unicorn", "unicorn")
    with pytest.raises(UserError, match="no class of MS-COCO"):
        class_tokens(TOKENIZER, "a unicorn", "unicorn", "paper")


@pytest.mark.skipif(not REAL.is_dir(), reason="no MS-COCO sample beside the repository")
def test_real_captions_name_what_is_in_their_pictures() -> None:
    named, there = 0, 0
    for split in ("train2017", "val2017"):
        instances = json.loads((REAL / f"instances_{split}.json").read_text())
        names = {one["id"]: one["name"] for one in instances["categories"]}
        assert tuple(names.values()) == COCO_CLASSES
        present = {(one["image_id"], names[one["category_id"]]) for one in instances["annotations"]}
        for one in json.loads((REAL / f"captions_{split}.json").read_text())["annotations"]:
            for label in classes_in(one["caption"]):
                query = class_tokens(TOKENIZER, one["caption"], label)
                assert not query.is_fallback
                named += 1
                there += (one["image_id"], label) in present
    assert named > 100
    assert there / named > 0.85

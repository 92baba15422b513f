"""Words of real reports: cleaning, what a sentence asserts and denies, and sides exchanged."""

import pytest

from meddiff.phantoms.report_words import clean, read_sentences, swap_sides


def test_cleaning_removes_the_token_and_what_it_left_empty() -> None:
    # sentences made up for this test
    assert clean("1. Normal chest x-XXXX. 2. XXXX of XXXX. 3. XXXX small effusion on the left.") == [
        "Normal chest x-ray.",
        "Small effusion on the left.",
    ]


@pytest.mark.parametrize(
    ("text", "asserted", "denied", "doubtful"),
    [
        ("No pneumothorax or pleural effusion", set(), {"Pneumothorax", "Pleural Effusion"}, False),
        ("Cardiomegaly without edema", {"Cardiomegaly"}, {"Edema"}, False),
        ("No effusion but there is a large opacity", {"Lung Opacity"}, {"Pleural Effusion"}, False),
        ("Opacity, pneumonia or atelectasis", {"Lung Opacity", "Pneumonia", "Atelectasis"}, set(), True),
        ("The heart is enlarged", {"Cardiomegaly"}, set(), False),
        ("The heart is not enlarged", set(), {"Cardiomegaly"}, False),
        ("Resolved right pneumothorax", set(), {"Pneumothorax"}, False),
    ],
)
def test_reading_respects_negation(text: str, asserted: set[str], denied: set[str], doubtful: bool) -> None:
    found, not_found, doubt = read_sentences([text])
    assert (set(found), not_found, doubt) == (asserted, denied, doubtful)


def test_swapping_sides_twice_is_the_same_text() -> None:
    text = "Left base clear, Right upper lobe and lingula dense, right middle lobe aerated"
    assert swap_sides(text) == "Right base clear, Left upper lobe and right middle lobe dense, lingula aerated"
    assert swap_sides(swap_sides(text)) == text

"""Which impressions name a class: whole words and plurals, or the paper's substrings."""

import pytest

from meddiff.attribution.naming import names_class
from meddiff.attribution.words import QUERY_WORDS


@pytest.mark.parametrize(
    ("text", "label", "standard", "paper"),
    [
        ("Bilateral PLEURAL EFFUSIONS.", "Pleural Effusion", True, True),
        ("Effusions, increased.", "Pleural Effusion", True, False),
        ("Lung opacity.", "Lung Opacity", True, True),
        ("Patchy opacities/consolidation", "Lung Opacity", True, False),
        ("Bilateral pneumothoraces", "Pneumothorax", True, False),
        ("Hydropneumothorax on the left", "Pneumothorax", False, True),
        ("Bronchopneumonia", "Pneumonia", False, True),
        ("Multiple pneumonias over the years", "Pneumonia", True, True),
        ("Broncho-pneumonia", "Pneumonia", True, True),
        ("Atelectatic base", "Atelectasis", True, False),
        ("Multifocal atelectases", "Atelectasis", True, False),
        ("Edematous lungs", "Edema", False, True),
        ("The heart is enlarged", "Cardiomegaly", False, False),
        ("Cardiac enlargement", "Cardiomegaly", True, False),
        ("", "Edema", False, False),
    ],
)
def test_names_class_looks_for_whole_words_and_plurals(text, label, standard, paper):
    assert names_class(text, label, QUERY_WORDS[label]) is standard
    assert names_class(text, label, QUERY_WORDS[label], "paper") is paper


def test_names_class_of_other_cohorts():
    assert names_class("Two buses and a carpet", "bus")
    assert not names_class("Two buses and a carpet", "car")
    assert names_class("Two buses and a carpet", "car", preset="paper")
    assert names_class("A traffic-light, three sandwiches", "traffic light")
    assert names_class("A traffic-light, three sandwiches", "sandwich")
    assert names_class("Two puppies", "dog", ("puppy",))
    assert not names_class("Lights of traffic", "traffic light")

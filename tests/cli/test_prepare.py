"""``lightning prepare phantom``: options as a user types them (what it writes: tests/preparation)."""

import pytest

from meddiff.phantoms import PhantomOptions
from meddiff.preparation import prepare_phantom as verb
from meddiff.shards.manifest import Manifest
from tests.builders.command import exit_code

COMMAND = ("prepare", "phantom")


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[PhantomOptions, str]]:
    """(options, command) of every cohort asked for; nothing is rendered."""
    asked: list[tuple[PhantomOptions, str]] = []

    def pretend(
        options: PhantomOptions, out: str, vae: str, command: str, processes: int | None, store="latents"
    ) -> Manifest:
        asked.append((options, command))
        return Manifest("phantom", command, {}, {}, "moments", (4, 16, 16), options.resolution, "none")

    monkeypatch.setattr(verb, "prepare_phantom", pretend)
    return asked


def test_confounders_are_given_one_by_one(prepared):
    line = "--n 200 --seed 1 --confounder pacemaker:cardiomegaly:0.9 --confounder tube:pneumothorax --shift 0.5 --out d"
    assert exit_code(*COMMAND, *line.split()) == 0
    ((options, command),) = prepared
    assert options == PhantomOptions(
        n=200, seed=1, confounders=("pacemaker:cardiomegaly:0.9", "tube:pneumothorax"), shift=0.5
    )
    assert command == f"lightning prepare phantom {line}"


def test_confounders_can_be_a_list_as_in_yaml(prepared):
    assert (
        exit_code(*COMMAND, "--out", "d", "--confounders", '["tube:edema"]', "--confounder", "marker:pneumonia:0") == 0
    )
    assert prepared[0][0].confounders == ("tube:edema", "marker:pneumonia:0")


@pytest.mark.parametrize(
    ("confounder", "words"),
    [
        ("laser:edema", "laser"),
        ("tube:measles", "measles"),
        ("tube:edema:2", "-1 and 1"),
        ("tube:edema:much", "much"),
        ("tube", "NAME:FINDING"),
        ("pacemaker:pneumonia", "once"),
    ],
)
def test_a_bad_confounder_is_one_sentence(prepared, capsys, confounder, words):
    assert exit_code(*COMMAND, "--out", "d", "--confounder", "pacemaker:cardiomegaly", "--confounder", confounder) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error
    assert not prepared

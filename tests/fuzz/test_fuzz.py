"""Any text at the three doors: it is read, or refused in a sentence; nothing else is raised, hangs or is half written."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meddiff.cli.arguments import expand
from meddiff.cli.quick_check import certain_problems
from meddiff.common.bounded import parse_json, parse_yaml
from meddiff.common.errors import UserError
from meddiff.common.ranges import Range
from meddiff.runs.folder import read_run
from meddiff.shards.checked import parse_sample
from meddiff.shards.manifest import Manifest
from meddiff.shards.pixels import parse_picture
from tests.builders.bad_inputs import huge_png
from tests.builders.doors import fuzz
from tests.builders.run_folders import make_run
from tests.builders.shard_samples import make_header

#: Examples of each test: in CI, and in the slow run, 3,000 together.
FEW, MANY = 12, 430
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 10**400, 1e308, -(2**63), 2**64]))
LEAVES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.text(max_size=8), st.sampled_from(["\ud800", "\0", "..", "x" * 300])
)
VALUES = st.recursive(
    LEAVES,
    lambda one: st.one_of(st.lists(one, max_size=3), st.dictionaries(st.text(max_size=6), one, max_size=3)),
    max_leaves=8,
)
MANIFEST = json.dumps(make_header().to_json())
SAMPLE = json.dumps(
    {"impression": "a", "labels": ["Edema"], "captions": ["a"], "phrases": [], "boxes": [], "width": 8, "height": 8}
)
OPTIONS = ("trainer.devices", "trainer.max_steps", "trainer.val_check_interval", "data.batch_size", "data.num_workers",
           "model.learning_rate", "model.min_snr_gamma", "model.sampling.steps", "model.sampling.guidance_scale")  # fmt: skip
FILES = ("metrics.jsonl", "tradeoff.csv", "controls.json", "config.yaml", "media/samples/000016000.json",
         "media/attention/000016000.json", "grounding/000016000.csv")  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, whole: str) -> bytes:
    """A whole text of which a value is another, or bytes are cut, doubled or others."""
    if whole.startswith("{") and "\n" not in whole and draw(st.booleans()):
        values = json.loads(whole)
        values[draw(st.sampled_from(sorted(values)))] = draw(VALUES)
        return json.dumps(values).encode()
    data = whole.encode()
    place = draw(st.integers(0, len(data)))
    middle = draw(
        st.one_of(st.binary(max_size=6), st.sampled_from([b"[" * 5000, b"9" * 5000, b"\0", b"\xff\xfe", b'"']))
    )
    return data[:place] + middle + data[place + draw(st.integers(0, 20)) :]


def manifest(data: bytes) -> None:
    with contextlib.suppress(UserError):
        found = Manifest.parse(data.decode(errors="replace"), "here")
        assert 1 <= found.resolution <= 65_536  # what passes is bounded
        assert found.scaling_factor > 0


def sample(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        found = parse_sample(data)
        assert isinstance(found["impression"], str)
        assert all(isinstance(one, str) for one in found["labels"])


def config(data: bytes, folder: Path) -> None:
    file = folder / "c.yaml"
    file.write_bytes(data)
    with contextlib.suppress(UserError):
        certain_problems(expand(["-c", str(file)]))


def option(name: str, value: object) -> None:
    with contextlib.suppress(UserError):
        certain_problems([f"--{name}={value}"])


def one_run(run: Path, name: str, data: bytes) -> None:
    file = run / name
    before = file.read_bytes()
    file.write_bytes(data)
    found = read_run(run)
    _ = found.problems, found.updated, found.name, found.images_per_step, found.logged("train/loss"), found.facts.seed
    file.write_bytes(before)


def picture(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_picture(data, 1)


def every_door(examples: int, folder: Path) -> None:
    """All doors, ``examples`` each."""
    run = make_run(folder / "t" / "r", evaluations=2, overlays=1, samples=1, size=16)
    texts = {name: (run / name).read_text() for name in FILES}
    whole = yaml.safe_dump({"base": None, "trainer": {"max_steps": 4}, "model": {"init_args": {"learning_rate": 1e-3}}})
    rule = fuzz(examples)
    rule(given(spoilt(MANIFEST))(manifest))()
    rule(given(spoilt(SAMPLE))(sample))()
    rule(given(spoilt(whole))(lambda data: config(data, folder)))()
    rule(given(VALUES)(lambda value: config(yaml.safe_dump(value).encode(errors="replace"), folder)))()
    rule(given(st.sampled_from(OPTIONS), st.one_of(NUMBERS, st.text(max_size=6)))(option))()
    rule(
        given(st.sampled_from(FILES).flatmap(lambda name: st.tuples(st.just(name), spoilt(texts[name]))))(
            lambda given_: one_run(run, *given_)
        )
    )()
    rule(
        given(st.integers(0, 2**31 - 1).map(huge_png), st.integers(0, 80), st.binary(max_size=4))(
            lambda data, place, other: picture(data[:place] + other + data[place + len(other) :])
        )
    )()


def test_every_door(tmp_path: Path) -> None:
    every_door(FEW, tmp_path)


@pytest.mark.slow
def test_every_door_for_long(tmp_path: Path) -> None:
    every_door(MANY, tmp_path)


def test_the_limits_are_where_they_are_said_to_be() -> None:
    """The control of the limits: just inside is read, just outside is not."""
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json("9" * 100) == int("9" * 100)
    for text in ("[" * 101 + "]" * 101, "9" * 101, '"\\ud800"'):
        with pytest.raises(ValueError, match=r"nests|digits|half"):
            parse_json(text)
    assert parse_yaml("a: &a [1]\nb: [*a, *a]")[0] == {"a": [1], "b": [[1], [1]]}
    with pytest.raises(ValueError, match="contains itself"):
        parse_yaml("a: &a [*a]")
    assert not Range(0, 10).holds(10**400)

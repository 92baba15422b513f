"""``lightning prepare COHORT`` as a user types it: from the official files of each cohort to shards, and its help.

What is refused: test_prepare_errors.py; Ctrl-C and kills: test_prepare_stopped.py; what the readers take: tests/preparation.
"""

import ast
import csv
import inspect
import shlex
from collections import Counter
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest
from PIL import Image

from meddiff.preparation.cohorts import COHORTS, reader
from meddiff.preparation.prepare_cohort import Machine
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.members import IMAGE_SPLITS
from tests.builders.cohort_trees import TREES, listing
from tests.builders.command import call

#: One Lightning process: this one.
HERE = ("--resolution", "64", "--accelerator", "cpu", "--devices", "1")
#: Rules about files that may hold no image or several; no step of the funnel, which counts images.
ABOUT_REPORTS = {"report cannot be read", "repeated report"}
#: A step of the funnel after which another thing is counted.
OTHER_UNIT = "boxes put together by image (what is left are images)"


def funnel(text: str) -> list[tuple[str, int, int]]:
    """(rule, left, removed) as printed."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("rule "))
    width, rows = len(lines[start]) - 24, []
    for line in lines[start + 1 :]:
        removed, left = (line[a:b].strip().replace(",", "") for a, b in ((width, -12), (-12, None)))
        rows.append((line[:width].strip(), int(left), int(removed or 0)))
        if line.startswith("written"):
            return rows
    raise AssertionError(text)


def rules(out: Path) -> Counter[str]:
    """Rule -> lines of ``rejected.csv``."""
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as stream:
        return Counter(row["rule"] for row in csv.DictReader(stream))


def test_every_cohort_has_a_tree():
    assert list(TREES) == list(COHORTS)


@pytest.mark.parametrize("cohort", TREES)
def test_official_files_become_shards_and_everything_else_a_line(cohort, tmp_path, vae_folder, capsys, monkeypatch):
    if cohort in ("vindr-cxr", "rsna"):
        pytest.importorskip("pydicom")
    root, out, here = tmp_path / "data" / cohort, tmp_path / "out", tmp_path / "here"
    for folder in (root, here):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    command = ["prepare", cohort, "--root", str(root), *TREES[cohort](root)]
    before = listing(tmp_path)

    code, dry, err = call(capsys, *command, "--dry_run")
    assert code == 0, err
    assert listing(tmp_path) == before

    command += ["--out", str(out), "--vae", str(vae_folder), *HERE]
    code, text, err = call(capsys, *command)
    assert code == 0, err
    after = listing(tmp_path)
    assert {name: digest for name, digest in after.items() if name.split("/")[0] != "out"} == before

    manifest = Manifest.read(out)
    rows = list(manifest.funnel)
    name = {"torchvision": "fashion_mnist"}.get(cohort, cohort)  # each of its data sets is a cohort of its own
    assert (manifest.cohort, manifest.command) == (name, shlex.join(["lightning", *command]))
    assert funnel(text) == rows
    assert funnel(dry)[:-2] == rows[:-2]
    # the cut file shows when it is read; a missing one at once
    lost_at_once, lost = funnel(dry)[-2][2], rows[-2][2]
    assert lost_at_once < lost <= 2
    assert rows[-1][1] == sum(count["samples"] for count in manifest.counts.values()) > 0

    expected = Counter({rule: removed for rule, _, removed in rows if rule != OTHER_UNIT})
    for name, removed in manifest.options.items():
        expected.update(removed if name.endswith("_removed") else {})
    lines = rules(out)
    assert {rule: n for rule, n in lines.items() if rule not in ABOUT_REPORTS} == {
        rule: n for rule, n in expected.items() if n and rule not in ABOUT_REPORTS
    }
    assert cohort != "open-i" or (lines["report cannot be read"], lines["repeated report"]) == (3, 1)

    patients: dict[str, str] = {}
    for split, count in manifest.counts.items():
        data = LatentShardsDataset(out, split)
        assert len(data) == count["samples"]
        for place in range(len(data)):
            sample = data[place]
            assert data.latent(place).shape == (8, 8, 8)  # mean and log-variance
            assert patients.setdefault(sample["patient_id"], split) == split
            assert (root / sample["source"]).is_file()
            if split in IMAGE_SPLITS:
                assert data.image(place).shape[:2] == (64, 64)
                for phrase in sample["phrases"]:
                    assert all(0 <= box["x"] < 64 and 0 <= box["y"] < 64 for box in phrase["boxes"])
    with Image.open(out / "preview.png") as sheet:
        assert sheet.width > 256
        sheet.load()


# ---- help -----------------------------------------------------------------------------------------------------------


def field_texts(of: type, prefix: str = "") -> dict[str, str]:
    """Option -> the string below its field, read from the source; of an options class within, those of its fields."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(of)).body if isinstance(node, ast.ClassDef))
    texts = {
        field.target.id: ast.literal_eval(text.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr)
    }
    assert list(texts) == [field.name for field in fields(of)]
    found: dict[str, str] = {}
    for name, kind in get_type_hints(of).items():
        within = is_dataclass(kind)
        found.update(field_texts(kind, f"{prefix}{name}.") if within else {f"{prefix}{name}": texts[name]})
    return found


@pytest.mark.parametrize("cohort", COHORTS)
def test_help_of_a_cohort_has_the_text_of_every_option(cohort, capsys):
    code, out, _ = call(capsys, "prepare", cohort, "--help")
    assert code == 0
    shown = "".join(out.split())
    for name, text in (field_texts(Machine) | field_texts(reader(cohort)[1])).items():
        assert f"--{name}" in out
        assert "".join(text.split()) in shown, name
    for name in ("root", "out", "vae", "resolution", "limit", "dry_run", "config"):
        assert f"--{name}" in out


def test_help_lists_all_cohorts(capsys):
    code, out, _ = call(capsys, "prepare", "--help")
    assert code == 0
    for name, entry in COHORTS.items():
        assert f"  {name:<12}{entry.help}\n" in out
    assert "phantom" in out

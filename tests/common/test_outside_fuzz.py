"""Every door that takes text from outside is fed hostile text: nothing is started, written or deleted outside the folders."""

import contextlib
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from callbacks.attention_gallery import _write_entry
from callbacks.image_writer import ImageWriter
from callbacks.media import save_samples
from datamodules.streaming import read_shards
from meddiff.common.errors import UserError
from meddiff.common.outside import check_relative, file_in, file_part, inside, run_name
from meddiff.evaluation.drawing import draw_images
from meddiff.evaluation.samples import GroundingSample
from meddiff.preparation.prepare_cohort import dry_run, read_cohort
from meddiff.runs.evaluation_folder import read_evaluation
from meddiff.runs.new_run import RUN_DIR_VARIABLE, run_folder
from meddiff.shards.dataset import LatentShardsDataset
from meddiff.shards.manifest import Manifest
from meddiff.shards.members import encode_sample
from meddiff.shards.writer import ShardWriter
from tests.builders import padchest_gr_tree as padchest
from tests.builders.audit import watched
from tests.builders.doors import TEXT, fuzz, harmless, quiet
from tests.builders.files import write_image
from tests.builders.folder_tree import write_json_lines
from tests.builders.shard_samples import make_header, make_pair, make_pairs, write_folder

# The hook itself -----------------------------------------------------------------------------------------------------


def test_the_hook_sees_what_is_planted(tmp_path):
    allowed, forbidden = tmp_path / "allowed", tmp_path / "forbidden"
    allowed.mkdir()
    forbidden.mkdir()
    (allowed / "way_out").symlink_to(forbidden)
    for name in ("a", "b", "c"):
        (forbidden / name).write_text("x")
    with watched(allowed, commands=["aws"]) as watch:
        (allowed / "fine").write_text("x")
        (allowed / "fine").unlink()
        (forbidden / "a").read_text()
    assert watch.seen == []
    plants = (
        lambda: (forbidden / "new").write_text("x"),
        lambda: (allowed / ".." / "forbidden" / "new").open("a").close(),
        lambda: (allowed / "way_out" / "new").write_text("x"),
        lambda: os.close(os.open(forbidden / "new", os.O_WRONLY)),
        lambda: (forbidden / "a").unlink(),
        lambda: os.rename(forbidden / "b", allowed / "b"),
        lambda: (forbidden / "folder").mkdir(),
        lambda: (forbidden / "folder").rmdir(),
        lambda: (forbidden / "link").symlink_to("c"),
        lambda: (forbidden / "c").chmod(0o600),
        lambda: subprocess.run(["true"], check=True),
        lambda: subprocess.run("aws() { true; }; aws", shell=True, check=True),
        lambda: os.system("true"),
        lambda: os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}), 0),
    )
    for plant in plants:
        with watched(allowed, commands=["aws"]) as watch:
            plant()
        assert watch.seen, plant


# Keys ----------------------------------------------------------------------------------------------------------------


def shard_of(folder: Path, key: str) -> None:
    """A shard folder whose one sample is called ``key``, as nobody's writer would make it."""
    members = encode_sample(*make_pair("fidelity", 0))
    with tarfile.open(folder / "fidelity-00000.tar", "w", errors="surrogatepass") as tar:
        for suffix, data in members.items():
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    size = (folder / "fidelity-00000.tar").stat().st_size
    record = {"name": "fidelity-00000.tar", "split": "fidelity", "samples": 1, "bytes": size, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(make_header().to_json() | {"shards": [record]}))


def use_key(folder: Path, key: str) -> None:
    """What the suite makes of a key: pictures of `predict`, of callbacks and of evaluations."""
    trainer = SimpleNamespace(default_root_dir=str(folder), global_rank=0, global_step=0, loggers=[])
    picture = np.zeros((8, 8, 3), np.uint8)
    split = SimpleNamespace(
        keys=[key],
        metadata=lambda index: {"impression": "text"},
        image=lambda index: picture,
        masks=lambda index: {key: picture[..., 0] > 0},
    )
    sample = GroundingSample(0, "key", key, "phrase", np.array([[1.0, 1.0, 3.0, 3.0]]), (8, 8))
    acts = (
        lambda: ImageWriter().write_on_batch_end(
            trainer, None, {"key": [key], "prompt": ["text"], "image": [picture]}, None, None, 0, 0
        ),
        lambda: save_samples(trainer, 8, split, {0: picture}, "ddim", 1),
        lambda: draw_images(folder / "drawn", {key: "text"}, {"seed": 0}, lambda texts, keys: picture[None], 1),
        lambda: _write_entry(folder, 8, split, sample, torch.rand(1, 2, 2), "word"),
    )
    for act in acts:
        with contextlib.suppress(UserError):
            act()


def test_a_good_key_is_drawn_at_every_door(place):
    folder = place()
    shard_of(folder, "good")
    use_key(folder, LatentShardsDataset(folder, "fidelity").keys[0])
    pictures = {file.relative_to(folder).as_posix() for file in folder.rglob("*.png")}
    assert pictures == {
        "media/predict/good.png", "media/samples/000000008-good.png", "media/samples/real-good.png", "drawn/good.png",
        "image-key.png", "000000008-key-good.png", "mask-key-good.png",
    }  # fmt: skip


@fuzz(150)
@given(key=TEXT)
def test_a_key_is_refused_or_stays_inside(place, key):
    folder = place()
    with contextlib.suppress(UnicodeError, ValueError):
        shard_of(folder, key)
    with harmless(folder):
        dataset = LatentShardsDataset(folder, "fidelity")
        use_key(folder, dataset.keys[0])
    with harmless(folder):
        for entry in read_shards([str(folder / "fidelity-00000.tar")], None, make_header()):
            use_key(folder, entry.key)
    with harmless(folder):
        use_key(folder, key)  # also where no shard was asked


# Names of files ------------------------------------------------------------------------------------------------------


@fuzz(60)
@given(name=TEXT)
def test_a_manifest_names_no_file_elsewhere(place, name):
    folder = place()
    written = write_folder(folder, {"train": 2})
    values = written.to_json()
    old = {**values["shards"][0], "name": name}
    (folder / "manifest.json").write_text(json.dumps(values | {"shards": [*values["shards"], old]}))
    with harmless(folder):
        LatentShardsDataset(folder, "train")
    with harmless(folder):  # the writer unlinks what a manifest of before names
        writer = ShardWriter(folder, make_header(), 5)
        writer.write("train", make_pairs("train", 2))
        writer.finish()
    (folder / "manifest.json").unlink()
    notes = folder / ".partial"
    notes.mkdir(exist_ok=True)
    (notes / "train-00000.tar.json").write_text(json.dumps(old))
    with harmless(folder):  # what a killed writer left
        writer = ShardWriter(folder, make_header(), 5)
        writer.write("train", make_pairs("train", 2))
        writer.finish()
        assert [shard.name for shard in Manifest.read(folder).shards] == ["train-00000.tar"]


@fuzz(60)
@given(path=TEXT)
def test_a_table_of_a_cohort_names_no_file_elsewhere(place, path):
    folder = place()
    write_image(folder / "a.png", 0)
    rows = (
        {"image": path, "text": path, "patient": "p0", "labels": path},
        {"image": "a.png", "text": "t", "patient": "p1"},
    )
    write_json_lines(folder, *rows, name="meta.jsonl")
    printed = io.StringIO()
    with harmless(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        reading = read_cohort("folder", folder)
        for record in reading.records:
            assert inside(folder, record.path).resolve().is_relative_to(folder.resolve())
        dry_run(reading)
    assert quiet(printed.getvalue())


@fuzz(40)
@given(text=TEXT)
def test_a_report_of_a_cohort_names_no_file_elsewhere(place, text):
    folder = place()
    findings = padchest.said(text or "t", text, boxes=[[0, 0, 1, 1]]), padchest.denied(text), padchest.denied("x", text)
    studies = [padchest.study(text, *findings), padchest.study("a.png", *findings)]
    cell = text.encode(errors="replace").decode()  # a table holds no half characters
    rows = [padchest.row("a.png", patient=cell, PatientSex_DICOM=cell), padchest.row(cell)]
    padchest.write_padchest(folder, studies, rows, ["a.png"])
    printed = io.StringIO()
    with harmless(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        reading = read_cohort("padchest-gr", folder)
        assert {Path(record.path).name for record in reading.records} == {"a.png"}
        dry_run(reading)
    assert quiet(printed.getvalue())


@fuzz(200)
@given(name=TEXT)
def test_names_and_paths_that_are_taken_stay_inside(place, name):
    folder = place()
    with contextlib.suppress(UserError):
        assert os.path.dirname(os.path.abspath(file_in(folder, name))) == str(folder)
    with contextlib.suppress(UserError):
        assert inside(folder, name).resolve().is_relative_to(folder.resolve())
    with contextlib.suppress(UserError):
        check_relative(name)
        assert os.path.abspath(folder / name).startswith(str(folder))
    assert re.fullmatch("[a-z0-9_-]{1,80}", file_part(name))
    with harmless(folder):
        read_evaluation(folder, name)


@fuzz(150)
@given(name=TEXT, job=st.one_of(st.none(), TEXT))
def test_a_run_name_stays_below_the_folder_of_runs(place, name, job):
    runs = place()
    os.environ.pop(RUN_DIR_VARIABLE, None)
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    if job is not None:
        with contextlib.suppress(ValueError):  # NUL and lone surrogates cannot be there
            os.environ["TORCHELASTIC_RUN_ID"] = job
    with harmless(runs), run_folder(str(runs), name, "fit", ["-c", name], None) as folder:
        assert runs.resolve() in folder.resolve().parents
    with contextlib.suppress(UserError):
        assert Path(os.path.abspath(runs / run_name(name))).is_relative_to(runs)

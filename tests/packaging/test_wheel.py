"""The wheel: what it carries, and that it works from an empty directory in a fresh environment."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.command import PATIENCE, ROOT

NAMES = ("callbacks", "datamodules", "lightning_modules", "meddiff")
#: Everything the build reads; a clone may hold runs, data and an old build/ beside it.
SOURCES = (*NAMES, "configs", "sweeps", "pyproject.toml", "README.md", "LICENSE")
#: Folders whose files are no Python and must travel.
CARRIED = (
    *(
        "configs",
        "sweeps",
        "meddiff/assets",
        "datamodules/synthetic",
        "meddiff/reports/paper/published",
        "meddiff/attribution/published",
        "meddiff/cli/options",
        "meddiff/metrics/published",
    ),
    *(f"meddiff/reports/{room}/{kind}" for room in ("page", "dashboard") for kind in ("templates", "static")),
)


def build(kind: str, tree: Path, out: Path) -> Path:
    """``wheel`` or ``sdist`` of ``tree``, by the installed setuptools: no isolation, no network."""
    out.mkdir(exist_ok=True)
    code = f"import sys, setuptools.build_meta as backend; print(backend.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=tree, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone as git has it, without what earlier builds left."""
    tree = tmp_path_factory.mktemp("packaging") / "clone"
    tree.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return build("wheel", tree, tree.parent / "wheel")


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def expected(tree: Path) -> dict[str, bytes]:
    """Path in the wheel -> bytes, of all code and of everything that must travel with it."""
    files = [file for name in NAMES for file in (tree / name).rglob("*.py")]
    files += [file for folder in CARRIED for file in (tree / folder).rglob("*") if file.is_file()]
    files.remove(tree / "sweeps" / "README.md")
    found = {file.relative_to(tree).as_posix(): file.read_bytes() for file in files if "build" not in file.parts}
    return {
        f"meddiff/{name}" if name.startswith(("configs/", "sweeps/")) else name: content
        for name, content in found.items()
    }


def test_wheel_carries_code_configs_assets_and_texts_and_nothing_else(tree, wheel):
    carried = {name: content for name, content in members(wheel).items() if ".dist-info/" not in name}
    assert carried == expected(tree)
    for name in (
        "meddiff/configs/quickstart.yaml",
        "meddiff/configs/debug/tiny.yaml",
        "meddiff/sweeps/quickstart_tradeoff.yaml",
        "datamodules/synthetic/impressions.csv",
    ):
        assert name in carried


def test_only_four_names_are_importable(wheel):
    inside = members(wheel)
    (top,) = (content.decode() for name, content in inside.items() if name.endswith("/top_level.txt"))
    assert tuple(sorted(top.split())) == NAMES
    (record,) = (content.decode() for name, content in inside.items() if name.endswith("/RECORD"))
    first = {line.split("/")[0] for line in record.splitlines()}
    assert {name for name in first if not name.endswith(".dist-info")} == set(NAMES)
    (scripts,) = (content.decode() for name, content in inside.items() if name.endswith("/entry_points.txt"))
    assert "lightning = meddiff.cli.main:main" in scripts


def test_wheel_of_the_source_distribution_is_the_same(tree, wheel, tmp_path):
    sdist = build("sdist", tree, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / sdist.name.removesuffix(".tar.gz")
    assert not list(unpacked.rglob("build"))
    of_sdist = members(build("wheel", unpacked, tmp_path / "wheel"))
    assert {name: of_sdist[name] for name in of_sdist if ".dist-info/" not in name} == expected(tree)


# ---- installed ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty directory, not within a clone."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def lightning(wheel: Path, empty: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Runs ``lightning ARGUMENTS`` of a fresh environment that holds the wheel, in the empty directory."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, timeout=PATIENCE)
    constraints = ["-c", str(ROOT / "constraints.txt")]
    install = [environment / "bin" / "python", "-m", "pip", "install", "-q", *constraints, str(wheel)]
    subprocess.run(install, check=True, timeout=3 * PATIENCE)
    # nothing of this checkout: no path to it, and no current folder on sys.path (a script's own folder takes its place)
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MEDDIFF_RUN_DIR")}
    variables["PATH"] = f"{environment / 'bin'}:{os.environ['PATH']}"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "bin" / "lightning", *arguments],
            cwd=empty,
            env=variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield run
    shutil.rmtree(environment)  # gigabytes, and pytest keeps the folders of three sessions


@pytest.mark.slow
def test_installed_wheel_does_everything_from_an_empty_directory(lightning, empty):
    lightning("fit", "-c", "configs/debug/tiny.yaml")
    few = ["--trainer.max_steps", "4", "--data.phantom.n", "64", "--data.phantom.grounding", "12"]
    few += ["--data.phantom.fidelity", "16", "--fidelity.samples", "8", "--name", "few"]
    lightning("fit", "-c", "configs/quickstart.yaml", *few)
    (run,) = empty.glob("runs/few/*")
    losses = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("grounding/macro_cnr" in row for row in losses)
    assert any("fidelity/fd_domain" in row for row in losses)
    assert (run / "report.html").is_file()

    lightning("prepare", "phantom", "--n", "16", "--out", "shards")
    assert (empty / "shards" / "manifest.json").is_file()
    lightning("sample", "--ckpt", str(run), "--prompts", "Left effusion.", "--steps", "2", "--out", "drawn")
    assert len(list((empty / "drawn").glob("*.png"))) == 1
    page = lightning("report", str(run), "--out", "page.html")
    assert page.strip() == "page.html"
    assert "<!doctype html>" in (empty / "page.html").read_text()
    assert "all well" in lightning("doctor").splitlines()[-1]

"""``lightning doctor``: is this installation whole, and what can this machine do?"""

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from meddiff.cli.quick_check import has_gpu_files
from meddiff.common.errors import UserError, refuse
from meddiff.common.outside import terminal
from meddiff.common.ranges import POSITIVE, Range, range_problems

#: What the numbers of a plan may be.
RANGES = {"mfu": Range(0.0, 1.0, above=True), "peak_tflops": POSITIVE}
PACKAGES = {
    "torch": "2.11",
    "torchvision": "0",
    "lightning": "2.6",
    "diffusers": "0.35",
    "open_clip_torch": "3.0",
    "transformers": "4.49",
    "webdataset": "1.0",
    "torchmetrics": "1.8",
    "torchxrayvision": "1.3",
    "omegaconf": "2.3",
    "jsonargparse": "4.53",
    "wandb": "0.22",
}
LOW_DISK_GB = 5.0
#: Seconds that W&B's server may take to answer.
ANSWER_S = 1.0


@dataclass(frozen=True)
class Check:
    """One line of the report: ``ok`` is True, False (must be mended) or None (worth knowing)."""

    name: str
    ok: bool | None
    text: str


def check_command() -> Check:
    """Is the ``lightning`` on PATH this suite's? Another package's script of that name may stand in front."""
    found = shutil.which("lightning")
    alternative = (
        "use `meddiff` or `python -m meddiff` instead, or install this suite once more "
        "(`pip install --force-reinstall --no-deps -e .` in the clone)"
    )
    if found is None:
        return Check("command", False, f"no `lightning` on PATH: activate the environment, or {alternative}")
    try:
        text = Path(found).read_text(encoding="utf-8", errors="replace")[:4000]
    except OSError as error:
        return Check("command", False, f"{found} cannot be read ({error.strerror}): {alternative}")
    if "meddiff.cli.main" in text:
        return Check("command", True, f"`lightning` is ours: {found}")
    return Check("command", False, f"`lightning` on PATH is another package's ({found}): {alternative}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in text.split("+")[0].split(".")[:2])


def check_packages() -> list[Check]:
    """Versions of what the suite stands on."""
    checks = [Check("python", sys.version_info >= (3, 11), sys.version.split()[0])]
    for package, least in PACKAGES.items():
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(package, False, f"not installed: `pip install '{package}>={least}'`"))
            continue
        fits = _version(version) >= _version(least)
        checks.append(Check(package, fits, version if fits else f"{version} is too old, >= {least} is needed"))
    return checks


def check_devices() -> list[Check]:
    """GPUs and cores. torch, which takes seconds to be read, is asked only where the system shows a GPU."""
    checks = []
    if has_gpu_files() or sys.platform == "win32":
        import torch

        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = f"{properties.total_memory / 2**30:.0f} GiB"
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            checks.append(Check(f"cuda:{index}", None, f"{properties.name}, {memory}, {bf16}"))
        if not checks:
            checks.append(
                Check("gpu", None, "the system has one and torch cannot use it: is its driver as new as torch?")
            )
    if not checks:
        checks.append(Check("gpu", None, "none: the quickstart runs on the CPU, full-size training needs a GPU"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS")
    checks.append(Check("cpu", None, f"{cores} cores{f', OMP_NUM_THREADS is {threads}' if threads else ''}"))
    return checks


def check_wandb() -> Check:
    """Whether runs are sent, asked of the server itself."""
    from meddiff.common.wandb_server import WRONG_KEY, base_url, logged_in_to_wandb, server_trouble

    if mode := os.environ.get("WANDB_MODE"):
        return Check("wandb", None, f"{mode}, as WANDB_MODE says")
    if not logged_in_to_wandb():
        return Check("wandb", None, "not logged in: runs stay offline in the run folder")
    trouble = server_trouble(ANSWER_S)
    if trouble is None:
        return Check("wandb", None, "logged in: runs are sent")
    if trouble == WRONG_KEY:
        return Check("wandb", None, f"{base_url()} does not take the API key: `wandb login --relogin` mends that")
    return Check("wandb", None, f"unreachable: {base_url()} does not answer, so runs stay offline in the run folder")


def check_files() -> list[Check]:
    """Weights, W&B login and free disk, seen from the current folder."""
    from meddiff.common.places import PHANTOM_VAE, locate
    from meddiff.models.weights.sources import missing_part

    problem = missing_part(PHANTOM_VAE, "vae")
    found = str(locate(PHANTOM_VAE)) if problem is None else f"the installation is not whole: {problem}"
    shipped = Check("phantom VAE", problem is None, found)
    weights = Path("weights")
    folders = sorted(p.name for p in weights.iterdir() if p.is_dir()) if weights.is_dir() else []
    free = shutil.disk_usage(".").free / 1e9
    return [
        shipped,
        Check(
            "weights", None, ", ".join(folders) or "none in weights/ (needed for configs/frozen.yaml, not for phantoms)"
        ),
        check_wandb(),
        Check("free disk", free > LOW_DISK_GB, f"{free:.0f} GB here"),
    ]


def _parsed(arguments: list[str]) -> argparse.Namespace:
    from meddiff.cli.parsing import SentenceParser

    about = "Checks this installation and this machine; exits with 1 if something must be mended."
    parser = SentenceParser(prog="lightning doctor", description=about)
    parser.add_argument(
        "--verify",
        type=str,
        nargs="+",
        default=[],
        metavar="PATH",
        help="Compare files with their check sums instead: run folders, folders of shards, single files; exits with 2 "
        "if one differs.",
    )
    parser.add_argument(
        "--plan",
        type=str,
        nargs="+",
        default=[],
        metavar="CONFIG",
        help="Say instead what a training takes: memory of each GPU by batch, images a second, hours, disk.",
    )
    parser.add_argument("--gpus", type=str, default="16x80", help="For --plan: number x GiB, e.g. 16x80.")
    parser.add_argument("--mfu", type=float, default=None, help="For --plan: share of the peak that is reached (0.28).")
    parser.add_argument(
        "--peak_tflops", type=float, default=None, help="For --plan: dense half-precision peak of a GPU."
    )
    found = parser.parse_args(arguments)
    refuse(range_problems({"mfu": found.mfu, "peak_tflops": found.peak_tflops}, RANGES, "--"))
    if bool(found.verify) == bool(found.plan):
        raise UserError(
            "Give lightning doctor either --verify PATH or --plan CONFIG (or nothing, to check this machine)."
        )
    return found


def main(arguments: list[str]) -> int:
    """Print the report; exit code 1 when something must be mended.

    Raises:
        UserError: with ``--verify``, a file that is not what its check sum says; with ``--plan``, a config that trains nothing.
    """
    if arguments:  # the plain check needs none of the packages it looks for
        asked = _parsed(arguments)
        if asked.plan:
            from meddiff.cli.plan import Machines, plan

            print(plan(asked.plan, Machines.of(asked.gpus), asked.peak_tflops, asked.mfu))
            return 0
        from meddiff.cli.verify import verify

        verify([Path(path).expanduser() for path in asked.verify])
        return 0
    checks = [check_command(), *check_packages()]
    if all(check.ok is not False for check in checks[1:]):
        checks += [*check_devices(), *check_files()]
    for check in checks:
        mark = {True: "ok  ", False: "BAD ", None: "    "}[check.ok]
        print(f"{mark} {check.name:<18}{terminal(check.text)}")
    bad = sum(check.ok is False for check in checks)
    print(f"\n{'all well' if not bad else f'{bad} to mend'}")
    return 1 if bad else 0

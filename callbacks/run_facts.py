"""What trackers are told of a run beside its configuration: short names to compare by, versions, the commit. Source: own."""

import os
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import Logger

from meddiff.runs.facts import Facts
from meddiff.runs.values import nested

#: Short name -> distribution.
PACKAGES = {
    "meddiff": "meddiff-tradeoff",
    "torch": "torch",
    "lightning": "lightning",
    "diffusers": "diffusers",
    "open_clip": "open_clip_torch",
    "transformers": "transformers",
    "wandb": "wandb",
}
ROOT = Path(__file__).resolve().parents[1]


def versions() -> dict[str, str]:
    """Of what decides numbers, and of ourselves; what is not installed as a package is left out."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of this suite, with ``+`` where files differ from it; None for an installed copy."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    if not (ROOT / ".git").exists():  # a repository further up is somebody else's
        raise FileNotFoundError(ROOT / ".git")
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10
    )  # fmt: skip
    return done.stdout.strip()


def run_facts(config: Mapping[str, object]) -> dict[str, object]:
    """Short, flat names beside the whole configuration, for groups, panels and filters.

    W&B cannot tell a sweep's ``model.freeze_text_encoder`` from a nested name, so charts go by these.

    Args:
        config: the resolved configuration.
    """
    known = Facts(None, None, config)
    group = os.environ.get("WANDB_RUN_GROUP", "")
    facts: dict[str, object] = {
        "freeze_text_encoder": nested(config, "model", "init_args", "freeze_text_encoder"),
        "encoder": known.encoder or None,
        "prompt": known.prompt or None,
        "seed": config.get("seed_everything"),
        "sweep": os.environ.get("WANDB_SWEEP_ID") or (group if group.startswith("sweep-") else None),
        "git_commit": commit(),
    }
    return {**{name: value for name, value in facts.items() if value is not None}, "versions": versions()}


def tell_facts(logger: Logger, config: Mapping[str, object]) -> None:
    """The configuration and the facts to a logger, which takes of them what it may; tags to W&B.

    ``WANDB_TAGS`` wins over tags of ours.
    """
    facts = run_facts(config)
    logger.log_hyperparams({**config, **facts})
    tags = [str(facts[name]) for name in ("encoder", "prompt") if name in facts]
    if isinstance(logger, WandbLogger) and tags and not os.environ.get("WANDB_TAGS"):
        run = logger.experiment
        run.tags = tuple(dict.fromkeys([*(run.tags or ()), *tags]))

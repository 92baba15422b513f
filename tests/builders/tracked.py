"""A training with every evaluation, as ``lightning fit`` runs it, for what it leaves with its loggers."""

from pathlib import Path

from meddiff.cli.main import dispatch
from tests.builders.command import write_fit

EVERY, BATCH, STEPS = 16, 8, 4


def tracked_config(folder: Path, shards: Path, vae: Path, classifier: Path) -> Path:
    """Four steps of 8 images, evaluated at 0, 16 and 32; the file."""
    way = {"sampler": "dpm++", "steps": 1, "guidance_scale": 1.0}
    folder.mkdir(parents=True, exist_ok=True)
    return write_fit(
        folder / "fit.yaml",
        shards,
        vae,
        {"max_steps": STEPS},
        checkpoint={"every_n_images": EVERY},
        grounding={"every_n_images": EVERY, "timesteps": 1},
        gallery={"every_n_images": EVERY, "timesteps": 1, "shown": 4},
        saliency={"every_n_images": EVERY, "samples": 2, "timesteps": 1, "shown": 1, "tools": ["attention"]},
        fidelity={
            "every_n_images": EVERY,
            "samples": 4,
            "shown": 2,
            "weights": {"domain": str(classifier)},
            "controls": ["real_vs_real"],
            "sampling": way,
        },
        tradeoff={"report": False},
    )


def tracked_fit(folder: Path, shards: Path, vae: Path, classifier: Path, *flags: str) -> Path:
    """Train it in this process; the run folder."""
    assert dispatch(["fit", "-c", str(tracked_config(folder, shards, vae, classifier)), *flags]) == 0
    return only_run(folder)


def only_run(folder: Path) -> Path:
    """The folder of the one run that was trained from ``folder``."""
    (run,) = (folder / "runs" / "t").iterdir()
    return run

"""A program for several processes: trains the tiny model under DDP and FSDP2, goes on from each other's checkpoints, and
writes down what every process saw. Started by :func:`run_on_ranks`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.builders.children import ROOT, environment

#: Nothing here takes a minute on two quiet cores; a machine that does much else must not fail a test.
PATIENCE = 600


def run_on_ranks(
    ranks: int, folder: Path, shards: Path, vae: Path, *fits: dict[str, object], dies: bool = False
) -> subprocess.CompletedProcess[str]:
    """Each of ``fits`` (arguments of :func:`fit`) one after the other, in ``ranks`` processes that torchrun starts.

    Args:
        dies: one of them is killed, and all end with an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"shards": str(shards), "vae": str(vae), "folder": str(folder), "fits": fits}))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), __file__, str(plan)]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode != 0) is dies, done.stdout[-4000:] + done.stderr[-8000:]
    return done


def seen(folder: Path, name: str, rank: int = 0) -> dict[str, list[object]]:
    """What a process of a fit saw: ``losses`` and ``keys`` of each micro-batch, ``grounding`` figures, ``error``."""
    found: dict[str, list[object]] = json.loads((folder / f"{name}.{rank}.json").read_text())
    return found


def fit(
    plan: dict[str, str],
    name: str,
    steps: int,
    strategy: str = "fsdp2",
    frozen: bool = True,
    batch: int = 8,
    largest: int | None = None,
    every: int = 2,
    resume: str | None = None,
    ground: bool = False,
    model: dict[str, object] | None = None,
    poison: dict[str, object] | None = None,
    defer: bool = False,
    classifier: str | None = None,
    dies: tuple[int, int] | None = None,
    prototypes: dict[str, object] | None = None,
) -> None:
    """One training.

    Args:
        strategy: "ddp", "fsdp2" (in pieces) or "fsdp2-one-file".
        defer: losses and gradients are looked at as on a GPU.
        classifier: measure fidelity at the beginning with the features of this one.
        dies: (rank, step): the process that is killed with SIGKILL once it has trained so far.
        prototypes: arguments of a PatronusModule that reads no text, in the place of the model with one.
    """
    import lightning as L
    import torch
    from lightning.pytorch.strategies import DDPStrategy

    from callbacks import FidelityCallback, GroundingCallback, RunCheckpoint
    from callbacks.checkpoint_io import DurableCheckpointIO
    from datamodules import LatentShardsDataModule
    from lightning_modules import FullyShardedStrategy, LatentDiffusionModule, PatronusModule
    from lightning_modules.finite import FiniteWatch
    from meddiff.common.errors import UserError
    from meddiff.models.pieces import gathered
    from meddiff.models.sampling import SamplingOptions
    from tests.builders.poisoned import PoisonedModule
    from tests.builders.tiny import model_config

    class Seen(L.Callback):
        def __init__(self) -> None:
            self.found: dict[str, list[object]] = {
                "losses": [],
                "keys": [],
                "grounding": [],
                "error": [],
                "largest": [],
            }

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if trainer.global_step == 0:
                self.found["grounding_first"] = [dict(grounding.latest)]
                self.found["fidelity_first"] = [dict(one.latest) for one in fidelity]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            self.found["losses"].append(float(outputs["loss"]))
            self.found["keys"].append(list(batch["key"]))
            (folder / f"{name}.{trainer.global_rank}.json").write_text(json.dumps(self.found))
            if dies is not None and (trainer.global_rank, trainer.global_step) == tuple(dies):
                os.kill(os.getpid(), signal.SIGKILL)

        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            if trainer.global_step == 0:
                trained = pl_module.model.trained_parameters()
                gradients = {one: gathered(p.grad).clone() for one, p in trained if p.grad is not None}
                torch.save(gradients, folder / name / "gradients.pt") if trainer.is_global_zero else None

    folder = Path(plan["folder"])
    (folder / name).mkdir(parents=True, exist_ok=True)
    L.seed_everything(7)
    arguments = model_config(plan["vae"], freeze_text_encoder=frozen, init_seed=7, **(model or {}))
    if prototypes is not None:
        module = PatronusModule(text_encoder=None, vae=plan["vae"], init_seed=7, **prototypes)
    else:
        module = PoisonedModule(**poison, **arguments) if poison else LatentDiffusionModule(**arguments)  # type: ignore[arg-type]
    if defer:
        module.__dict__["_finite_watch"] = FiniteWatch(module.stop_after_skipped_steps, defer=True)
    saving, watching = RunCheckpoint(every_n_images=every * batch), Seen()
    saving.dirpath = str(folder / name)
    grounding = GroundingCallback(every_n_images=2 * batch, samples=3, timesteps=2, batch_size=1)
    drawn = {"sampler": "dpm++", "steps": 2, "guidance_scale": 2.0}
    fidelity = (
        [
            FidelityCallback(
                1000 * batch, samples=5, shown=2, weights={"domain": classifier}, sampling=SamplingOptions(**drawn)
            )
        ]
        if classifier
        else []
    )
    made = DDPStrategy() if strategy == "ddp" else FullyShardedStrategy(strategy == "fsdp2")
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        strategy=made,
        logger=False,
        callbacks=[saving, watching, *([grounding] if ground else []), *fidelity],
        limit_val_batches=1,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder / f"{name}-run",
    )
    data = LatentShardsDataModule(plan["shards"], batch_size=batch, max_batch_per_device=largest)
    made.checkpoint_io = DurableCheckpointIO()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=None if resume is None else str(folder / resume))
    except UserError as error:
        watching.found["error"].append(str(error))
    if ground:
        watching.found["grounding"] = [grounding.latest]
    (folder / f"{name}.{trainer.global_rank}.json").write_text(json.dumps(watching.found))


if __name__ == "__main__":
    import warnings

    import torch

    from meddiff.cli.lost_process import lost_process

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's word to the others; the command finishes its step first
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    told = json.loads(Path(sys.argv[1]).read_text())
    for one in told["fits"]:
        try:
            fit(told, **one)
        except RuntimeError as error:
            lost = lost_process(error, told["folder"])
            print(lost if isinstance(lost, Exception) else "", file=sys.stderr)
            raise SystemExit(2) from (None if lost else error)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

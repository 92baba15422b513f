"""FSDP2: weights, gradients, optimiser and average cut into pieces, one for each process of the training.

Two parts: where a model is cut (:func:`shard`), and a strategy (:class:`FullyShardedStrategy`) that saves and reads what is
cut. Source: own, over torch's ``fully_shard`` and Lightning's ``ModelParallelStrategy``.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed.checkpoint as dcp
from lightning.fabric.plugins.collectives.torch_collective import default_pg_timeout
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from lightning_modules.finite import any_process, largest_of
from meddiff.common.check_sums import remove_sum
from meddiff.common.errors import UserError
from meddiff.common.files import sync_folder
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.models.pieces import gathered, is_sharded, placed_like, put
from meddiff.models.weights.fitting import fit_state
from meddiff.runs import pieces
from meddiff.runs.checkpoints import TO_TRAIN, Checkpoint, part_of, read_checkpoint

#: The dimension of Lightning's mesh over which batches are shared; the other one has one process.
DATA = "data_parallel"


def shard_for(module: LightningModule, model: LatentDiffusion) -> None:
    """Cut ``model`` where the module's trainer trains with :class:`FullyShardedStrategy`; else leave it whole.

    Whoever only evaluates holds the model whole: what trains it has the room, and no forward pass waits for another process.

    Raises:
        UserError: Lightning's own strategy, which would save one process's piece of the average; or the older FSDP with
            what it cannot do.
    """
    trainer = module._trainer
    if trainer is not None and isinstance(trainer.strategy, FSDPStrategy):
        refuse_whole(trainer, getattr(module, "ema_decay", None))
    if trainer is None or not isinstance(trainer.strategy, ModelParallelStrategy):
        return
    if not isinstance(trainer.strategy, FullyShardedStrategy):
        raise UserError(
            "trainer.strategy: Lightning's ModelParallelStrategy does not save averages that are in pieces: take "
            "class_path: lightning_modules.FullyShardedStrategy (configs/strategy/fsdp2_16.yaml)."
        )
    if trainer.state.fn == TrainerFn.FITTING:
        if not all(weight.is_contiguous() for weight in model.parameters()):
            raise UserError(
                "speed.channels_last lays weights out in a way in which FSDP cannot cut them: set it to false."
            )
        shard(model, trainer.strategy.device_mesh[DATA])


def refuse_whole(trainer: Trainer, ema_decay: float | None) -> None:
    """The older FSDP forbids a forward pass with whole weights, and cuts them after an average is made.

    Raises:
        UserError: an average is kept, or something is measured during training.
    """
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]  # not declared
    measures = [type(one).__name__ for one in callbacks if hasattr(one, "measurement")]
    wrong = [*measures, *(["model.ema_decay"] if ema_decay is not None else [])]
    if wrong:
        raise UserError(
            f"trainer.strategy: FSDP does not go together with {', '.join(wrong)}, which must be null: take FSDP2 "
            f"(configs/strategy/fsdp2_16.yaml), or see configs/strategy/fsdp_16.yaml."
        )


def shard(model: LatentDiffusion, mesh: DeviceMesh) -> None:
    """Cut the U-Net block by block, and a tower that learns layer by layer; each is one gather and one reduction.

    A frozen tower stays whole: it has no gradients, no optimiser and no average, which are most of the memory, and every
    step would gather it for nothing. Weights stay float32, as they are under DDP; autocast rounds where it computes.
    """
    for network in [model.unet] if model.freeze_text_encoder else [model.unet, model.text_encoder]:
        for block in blocks_of(network):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(network, mesh=mesh)


def blocks_of(network: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that compute one after the other: items of its outermost lists, and a U-Net's middle."""
    for name, part in network.named_children():
        if isinstance(part, nn.ModuleList):
            yield from (block for block in part if any(True for _ in block.parameters()))
        elif name == "mid_block":
            yield part
        else:
            yield from blocks_of(part)


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes: every one trains on its own share of a batch, and holds its piece of all that trains.

    Lightning's strategy leaves to a module what is cut, and to its hooks what is saved; then each process's piece of the
    average would be lost but the first one's. This one saves the average as it saves the weights, writes a folder whole or
    not at all, reads what any other strategy wrote on any number of processes, and refuses what does not fit.

    Args:
        save_distributed_checkpoint: true writes a folder, each process its piece; false gathers everything into one file.
        process_group_backend: null takes nccl on GPUs and gloo elsewhere.
        timeout: after which a process that waits for another gives up.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        super().__init__(1, 1, save_distributed_checkpoint, process_group_backend, timeout)

    def setup_environment(self) -> None:
        """All processes share the data: their number is known only here."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """As Lightning's.

        Raises:
            UserError: the module cuts nothing, so that processes would train apart.
        """
        assert self.lightning_module is not None
        if trainer.state.fn == TrainerFn.FITTING and not is_sharded(self.lightning_module):
            raise UserError(
                f"trainer.strategy: {type(self.lightning_module).__name__} does not cut its model: train it with "
                f"strategy: ddp."
            )
        super().setup(trainer)

    # ---- saving -------------------------------------------------------------------------------------------------

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | os.PathLike[str], storage_options: object | None = None
    ) -> None:
        """Write a folder or one file; called by all processes together."""
        path = Path(self.broadcast(str(filepath)))
        average = checkpoint.get("ema")
        if not self._save_distributed_checkpoint:
            if average is not None:
                average["shadow"] = self._on_the_first(average["shadow"])
            if self.is_global_zero and path.is_dir():
                shutil.rmtree(path)
            self.checkpoint_io.save_checkpoint(checkpoint, path) if self.is_global_zero else None
            return
        state = {pieces.MODEL: checkpoint.pop("state_dict")}
        state |= {f"optimizer_{i}": one for i, one in enumerate(checkpoint.pop("optimizer_states", []))}
        if average is not None:
            state[pieces.AVERAGE] = average.pop("shadow")
        part = part_of(path)
        if self.is_global_zero:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self.barrier()
        dcp.save(state, checkpoint_id=part)
        if self.is_global_zero:
            with (part / pieces.ABOUT).open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(part)
            take_place(part, path)
        self.barrier()

    def _on_the_first(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gather tensors one by one on the first process; the others keep nothing."""
        found = {}
        for name, value in state.items():
            full = gathered(value)
            if self.is_global_zero:
                found[name] = full.cpu()
        return found

    # ---- reading ------------------------------------------------------------------------------------------------

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read weights, optimiser and average of a folder or a file; returns the rest.

        Raises:
            UserError: it does not fit, is damaged or not finite, or lacks the optimiser's state.
        """
        path = Path(self.broadcast(str(checkpoint_path)))
        module = self.lightning_module
        assert module is not None
        if not is_sharded(module):
            read: dict[str, Any] = self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
            return read
        checkpoint = self._from_folder(module, path) if path.is_dir() else self._from_file(module, path)
        bad = (~largest_of(list(module.parameters()), self.root_device).isfinite()).float()
        any_process(bad)
        if bad > 0:
            raise UserError(f"{path} holds weights that are not finite: take an earlier checkpoint.")
        return checkpoint

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Of a model that is whole; one in pieces was filled while the checkpoint was read."""
        assert self.lightning_module is not None
        if not is_sharded(self.lightning_module):
            self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def _from_folder(self, module: LightningModule, path: Path) -> dict[str, Any]:
        state = module.state_dict()
        fit_state(state, pieces.stored(path, pieces.MODEL), f"checkpoint {path}")
        pieces.fill({pieces.MODEL: state}, path)
        for i, optimizer in enumerate(self.optimizers):
            of_optimizer = get_optimizer_state_dict(module, optimizer)
            pieces.fill({f"optimizer_{i}": of_optimizer}, path)
            set_optimizer_state_dict(module, optimizer, of_optimizer)
        checkpoint = pieces.about(path)
        checkpoint["state_dict"] = state
        average = getattr(getattr(module, "model", None), "ema", None)
        if isinstance(checkpoint.get("ema"), dict):
            there = pieces.stored(path, pieces.AVERAGE)
            own = average.state_dict()["shadow"] if average is not None else {}
            # others than those that train now are refused by name, by whoever restores them
            shadow = {name: torch.empty_like(own[name]) if name in own else value for name, value in there.items()}
            if own.keys() == there.keys():
                fit_state(own, there, f"The EMA of {path}", prefixes=())
                pieces.fill({pieces.AVERAGE: shadow}, path)
            checkpoint["ema"]["shadow"] = shadow
        return checkpoint

    def _from_file(self, module: LightningModule, path: Path) -> dict[str, Any]:
        """Every process maps the file into memory and takes its piece: nothing is sent, and nothing is read twice."""
        checkpoint = read_checkpoint(path)
        missing = [name for name in TO_TRAIN if name not in checkpoint]
        if missing:
            raise UserError(f"{path} has no {missing[0]}: give a checkpoint that training can go on from.")
        own = module.state_dict()
        for name, value in fit_state(own, checkpoint["state_dict"], f"checkpoint {path}").items():
            put(own[name], value)
        for optimizer, stored in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(cut_state(optimizer, stored))
        return cast(Checkpoint, checkpoint)


def cut_state(optimizer: torch.optim.Optimizer, stored: Mapping[str, Any]) -> dict[str, Any]:
    """An optimiser's whole state (by number) with each tensor cut as the parameter it belongs to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for i, values in stored["state"].items():
        like = parameters[i]
        state[i] = {
            name: placed_like(like, value) if isinstance(value, Tensor) and value.shape == like.shape else value
            for name, value in values.items()
        }
    return {"state": state, "param_groups": stored["param_groups"]}


def take_place(part: Path, path: Path) -> None:
    """Give a folder that is whole its name; what had that name goes when the new one is there."""
    old = part.with_name(part.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.is_file() or path.is_symlink():
        remove_sum(path)
        path.unlink()
    elif path.exists():
        os.replace(path, old)
    os.replace(part, path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)

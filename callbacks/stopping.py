"""A signal ends training between two steps, with a checkpoint and an exit code that says so. Source: own."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoint import RunCheckpoint
from callbacks.evaluation import run_folder
from callbacks.requeue import requeue, requeue_signal
from callbacks.step_boundary import as_at_batch_end, call_between_steps
from meddiff.common.stopping import ASKING, SAME_REQUEST, early_signal, kill_now
from meddiff.runs import names


class StopBetweenSteps(Callback):
    """SIGTERM, SIGHUP or Ctrl-C: the step is finished, a checkpoint written, and the exit code is 128 + the signal.

    A signal again, two seconds later or more, ends the process at once. Processes of one training agree after each step
    (one number is reduced; on GPUs it is read a step later, so that no step waits for it), since a signal reaches them at
    different moments or only one of them. Lightning's own handling ends with exit code 0 and without a checkpoint, and calls
    collectives from within the handler. The signal by which SLURM says that time is nearly up ends it in the same way, and
    puts the job back into the queue (:mod:`callbacks.requeue`).

    Attributes:
        signum: the signal that was received; 0 if none.
        requeued: whether SLURM took the job back.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.requeued = False
        self._requeue_signal: int | None = None
        self._before: dict[int, signal._HANDLER] = {}
        self._note: signal._HANDLER = None
        self._process = 0
        self._first_step = 0
        self._asked = 0.0
        self._agreement = Agreement()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._first_step = trainer.global_step
        self._agreement = Agreement()
        call_between_steps(trainer)
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        launcher = trainer.strategy.launcher

        def note(signum: int, frame: FrameType | None) -> None:
            if os.getpid() != self._process:
                return  # a worker of a loader, which its trainer ends
            if self.signum:
                if time.monotonic() < self._asked + SAME_REQUEST:
                    return
                if launcher is not None and hasattr(launcher, "kill"):
                    launcher.kill(signal.SIGKILL)
                kill_now(signum)
            self.signum, self._asked = signum, time.monotonic()
            if trainer.is_global_zero:  # not print: the handler may have interrupted one
                os.write(
                    sys.__stderr__.fileno() if sys.__stderr__ is not None else 2,
                    f"\n{signal.Signals(signum).name}: stopping after this step, with a checkpoint; once more stops "
                    "at once\n".encode(),
                )

        self._note = note
        self._requeue_signal = requeue_signal(trainer)
        if (early := early_signal()) and early == self._requeue_signal:
            note(early, None)
        requeueing = () if self._requeue_signal is None else (self._requeue_signal,)
        for one in (*ASKING, signal.SIGINT, *requeueing):
            handler = signal.getsignal(one)
            if handler is not signal.SIG_IGN:  # `nohup`, and Ctrl-C for what a shell runs in the background
                self._before[one] = handler
                signal.signal(one, note)
        # Lightning asks all processes before each step whether its own handler, replaced here, has seen a SIGTERM, and waits
        # for the answer and the device.
        vars(trainer.fit_loop.epoch_loop)["_broadcast_sigterm_tensor"] = lambda: None

    def on_step_boundary(self, trainer: Trainer) -> None:
        """Stop if any process was asked to.

        Raises:
            SystemExit: with 128 + the signal's number.
        """
        agreed = self._agreement.of(trainer, self.signum)
        if agreed:
            self.signum = agreed
            self._save(trainer)
            self.requeued = self.signum == self._requeue_signal and requeue(trainer)
            raise SystemExit(self.exit_code(trainer))

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._first_step:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # not declared
        own = next((one for one in callbacks if isinstance(one, RunCheckpoint)), None)
        if own is not None:
            if own._last_global_step_saved != trainer.global_step:
                own.save_between_steps(trainer)
        elif trainer.checkpoint_callbacks:
            with as_at_batch_end(trainer):
                folder = Path(run_folder(trainer)) / names.CHECKPOINTS
                trainer.save_checkpoint(folder / f"step-{trainer.global_step:08d}.ckpt")

    def exit_code(self, trainer: Trainer) -> int:
        """128 + the signal; 0 without one, of a job that goes on, and in processes that Lightning started: it would take it
        for a crash."""
        launched = isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)
        if not self.signum or self.requeued or (launched and trainer.local_rank > 0):
            return 0
        return 128 + self.signum

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for one, handler in self._before.items():
            if signal.getsignal(one) is self._note:  # Lightning has usually restored what was there before it
                signal.signal(one, handler)
        self._before.clear()
        vars(trainer.fit_loop.epoch_loop).pop("_broadcast_sigterm_tensor", None)


class Agreement:
    """What all processes of a training heed together: the largest signal that any of them has received.

    On a GPU reading a number makes the host wait for everything that is queued. There the number is reduced and copied
    beside the computing, and read at the next boundary between steps: one step later, on all processes alike.

    Args:
        defer: read at the next boundary; None does so on a GPU.
    """

    def __init__(self, defer: bool | None = None) -> None:
        self.defer = defer
        self._pending: tuple[torch.Tensor, torch.cuda.Event | None] | None = None

    def of(self, trainer: Trainer, signum: int) -> int:
        """The signal to heed now, 0 for none; called by all processes at the same boundary."""
        if trainer.world_size == 1 or not torch.distributed.is_initialized():
            return signum
        device = trainer.strategy.root_device
        found = torch.full((), signum, dtype=torch.int32, device=device)  # filled there: nothing is copied
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        on_gpu = device.type == "cuda"
        if not (on_gpu if self.defer is None else self.defer):
            return int(found)
        event = None
        if on_gpu:
            host = torch.empty((), dtype=torch.int32, pin_memory=True)
            found, event = host.copy_(found, non_blocking=True), torch.cuda.Event()
            event.record()
        before, self._pending = self._pending, (found, event)
        if before is None:
            return 0
        if before[1] is not None:
            before[1].synchronize()  # of the step before: done, or nearly
        return int(before[0])

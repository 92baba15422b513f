"""How processes that were started side by side agree on one run folder, before there is a Trainer. Source: own."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.common.files import write_json
from meddiff.common.processes import is_first_process
from meddiff.runs.new_run import PATIENCE_S, Exchange

#: Stores stay open as long as their process: who asks last must still find an answer.
_open: list[object] = []


@contextmanager
def exchange_between(parent: Path, arguments: list[str], patience_s: float = PATIENCE_S) -> Iterator[Exchange | None]:
    """A way for the first process to tell the others a name; None where there are no others, or they inherit it.

    torchrun keeps a store that all its processes reach; of machines on which a user starts the command himself
    (``NODE_RANK``, ``MASTER_ADDR``), the first one opens one. srun has none: there a file below ``parent`` is handed over,
    named by the step of the job.

    Args:
        parent: RUNS/NAME, on a file system that all processes see.
        arguments: of the command.
        patience_s: how long the others wait, in seconds.

    Raises:
        UserError: torchrun restarted its processes in a way in which they cannot meet.
    """
    variables = os.environ
    elastic, port = "TORCHELASTIC_RUN_ID" in variables, variables.get("MASTER_PORT", "")
    if elastic and int(variables.get("WORLD_SIZE") or 1) > 1 and port.isdigit():
        agent = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if agent and variables.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            raise UserError(  # gloo, by which Lightning's processes wait for each other, then waits for the dead ones
                "torchrun started its processes again over the store of those that died, in which they would never find each "
                "other: give TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before torchrun."
            )
        # Where torchrun has no store of its own, the training will open one at this port: stay beside it.
        yield _store(int(port) + (not agent), not agent and is_first_process(), patience_s)
    elif "NODE_RANK" in variables and "LOCAL_RANK" not in variables and port.isdigit():
        yield _store(int(port) + 1, is_first_process(), patience_s)
    elif "SLURM_PROCID" in variables and int(variables.get("SLURM_NTASKS") or 1) > 1:
        step = "-".join(variables.get(name) or "0" for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
        path = parent / f".step-{step}.json"
        try:
            yield _file(path, arguments, patience_s)
        finally:
            if is_first_process():  # the next command of this step says its own
                path.unlink(missing_ok=True)
    else:
        yield None


def _store(port: int, host: bool, patience_s: float) -> Exchange:
    def exchange(name: str | None) -> str:
        from torch.distributed import DistStoreError, PrefixStore, TCPStore

        address = os.environ.get("MASTER_ADDR", "localhost")
        try:
            store = TCPStore(
                address, port, is_master=host, wait_for_workers=False, timeout=timedelta(seconds=patience_s)
            )
            # A restarted group finds the same store, with what its forerunner said.
            shared = PrefixStore(f"meddiff/run/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            if name is not None:
                shared.set("folder", name)
                _open.append(store)
            return str(shared.get("folder").decode())
        except (DistStoreError, RuntimeError) as error:  # RuntimeError: nobody listens there
            raise UserError(_unheard(f"at {address}:{port}", patience_s)) from error

    return exchange


def _file(path: Path, arguments: list[str], patience_s: float) -> Exchange:
    def exchange(name: str | None) -> str:
        if name is not None:
            write_json(path, {"folder": name, "arguments": arguments})
            return name
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            try:
                said = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                said = {}
            # A step may run several commands, one after the other: this one's folder is wanted.
            if isinstance(said, dict) and said.get("arguments") == arguments:
                return str(said["folder"])
            time.sleep(0.2)
        raise UserError(_unheard(str(path), patience_s))

    return exchange


def _unheard(where: str, patience_s: float) -> str:
    return (
        f"the first process has not said within {patience_s:.0f} s which run folder it made ({where}): see what stopped it, "
        "or why this process does not reach it."
    )

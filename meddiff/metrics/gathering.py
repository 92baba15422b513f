"""A metric whose states are lists that may be of any length, also empty, on any process. Source: own."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric


class ListMetric(Metric):
    """Base of the suite's metrics: every list state holds one-dimensional tensors of ``state_dtype``.

    Why not torchmetrics alone: for a process without data it gathers an empty vector of the metric's own dtype, which
    is float32 again after every move to a device. Beside float64 or two-dimensional states of the other processes that
    is an all_gather of tensors that do not match: garbage, an error or a hang.

    Args:
        sync_on_compute: `compute` speaks of all processes and must be called by every one of them; false: of what this
            process was given, for a caller that has gathered the samples itself.
    """

    is_differentiable = False
    full_state_update = False
    state_dtype: torch.dtype = torch.float32

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)

    def add_list(self, name: str) -> None:
        """Register a list state that processes concatenate."""
        self.add_state(name, default=[], dist_reduce_fx="cat")

    def append(self, name: str, values: Tensor) -> None:
        """Add the values of any shape, flattened, to a list state."""
        # Apple's device has no float64; there is one process there, so the CPU will do.
        home = "cpu" if self.device.type == "mps" else self.device
        getattr(self, name).append(values.detach().to(home, self.state_dtype).flatten())

    def joined(self, name: str) -> Tensor:
        """One tensor (n,) of a list state, before and after processes were gathered, also when it is empty."""
        state: list[Tensor] | Tensor = getattr(self, name)
        if isinstance(state, Tensor):
            return state
        return torch.cat(state) if state else torch.zeros(0, dtype=self.state_dtype)

    def sync(
        self,
        dist_sync_fn: Callable[..., list[Tensor]] | None = None,
        process_group: "dist.ProcessGroup | None" = None,
        should_sync: bool = True,
        distributed_available: Callable[[], bool] | None = None,
    ) -> None:
        """As torchmetrics, after giving every empty list an empty tensor of the right type."""
        for name in self._defaults:
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                self.append(name, torch.zeros(0))
        super().sync(dist_sync_fn, process_group, should_sync, distributed_available)

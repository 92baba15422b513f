"""How batches reach the device. Source: own."""

import torch
from torch import Tensor

from lightning_modules.guarded import GuardedModule
from lightning_modules.speed import SpeedOptions
from meddiff.models.latent_diffusion import LatentDiffusion
from meddiff.shards.batches import TokenBatch


class SideStream:
    """Copies of batches to a GPU beside what it computes.

    The host runs ahead of the GPU: it asks for a batch while the step before is still computed. On the stream of the
    computing the copy would wait its turn; here it begins at once, and the computing waits for it.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def begin(self, device: torch.device) -> torch.cuda.StreamContext:
        """Context in which copies are made."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        return torch.cuda.stream(self._streams[device])

    def join(self, device: torch.device, copied: list[Tensor]) -> None:
        """The computing waits for the copies, and their memory is not used again before it is done with them."""
        now = torch.cuda.current_stream(device)
        now.wait_stream(self._streams[device])
        for one in copied:
            one.record_stream(now)


class TransferringModule(GuardedModule):
    """A training of a latent diffusion model, ``model``, whose ``speed`` may say that batches are copied beside the computing.

    Tokens stay on the host where states of texts are looked up by them.
    """

    model: LatentDiffusion
    speed: SpeedOptions

    def transfer_batch_to_device(self, batch: TokenBatch, device: torch.device, dataloader_idx: int) -> TokenBatch:
        """The batch with its tensors on the device; the host waits for nothing if they are pinned."""
        kept = ("tokens",) if self.model.caches_texts else ()
        tensors = {name: one for name, one in batch.items() if isinstance(one, Tensor) and name not in kept}
        if self.speed.prefetch and device.type == "cuda":
            with self._side.begin(device):
                copied = super().transfer_batch_to_device(tensors, device, dataloader_idx)
            self._side.join(device, list(copied.values()))
        else:
            copied = super().transfer_batch_to_device(tensors, device, dataloader_idx)
        moved: TokenBatch = {**batch, **copied}
        return moved

    @property
    def _side(self) -> SideStream:
        if "_side_stream" not in self.__dict__:
            self.__dict__["_side_stream"] = SideStream()
        found: SideStream = self.__dict__["_side_stream"]
        return found

"""The arithmetic of ``lightning doctor --plan``: memory, time and disk of a training, from its footprint. Source: own.

Every number is an upper bound of what is added up here, but for :data:`RESERVE`, which is a guess: what CUDA, cuDNN and the
allocator take for themselves.
"""

from dataclasses import dataclass

from meddiff.models.footprint import Footprint

GIB = 2**30
#: Bytes that CUDA's context and the workspaces of its libraries take on a GPU.
CONTEXT = 1.5 * GIB
#: Share of a GPU's memory that lies idle between the allocator's blocks.
RESERVE = 0.05
#: Batches a GPU that a plan shows.
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Training:
    """What of a configuration decides on memory and time.

    Attributes:
        footprint: of its model.
        learnable: whether the text tower trains.
        average: whether an average is kept.
        half: activations in half precision.
        gpus: number of GPUs.
        sharded: what trains, its gradients, moments and average are shared among them (FSDP).
        buckets: DDP keeps a second copy of the gradients (``gradient_as_bucket_view: false``, its default).
    """

    footprint: Footprint
    learnable: bool
    average: bool
    half: bool
    gpus: int
    sharded: bool
    buckets: bool = False

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return self.footprint.unet + (self.footprint.text if self.learnable else 0)

    def fixed(self) -> dict[str, float]:
        """Bytes on each GPU that do not depend on the batch, by what they are for."""
        parameters = self.footprint.unet + self.footprint.text
        share = self.gpus if self.sharded else 1
        parts: dict[str, float] = {
            "weights": 4 * (self.trained / share + parameters - self.trained),  # a frozen tower is whole on each
            "gradients": 4 * self.trained / share,
            "AdamW": 8 * self.trained / share,
            "average": 4 * self.trained / share if self.average else 0.0,
            "half-precision weights": 2 * parameters if self.half else 0.0,
            "CUDA": CONTEXT,
        }
        if self.gpus > 1 and self.buckets and not self.sharded:
            parts["buckets of DDP"] = 4 * self.trained
        return {name: value for name, value in parts.items() if value}

    def image(self, checkpointing: bool) -> float:
        """Bytes of one image of the batch, with or without activation checkpointing of the U-Net."""
        found = self.footprint
        unet = found.kept_checkpointed + found.block if checkpointing else found.kept
        return unet + (found.text_kept if self.learnable else 0)

    def memory(self, batch: int, checkpointing: bool) -> float:
        """Bytes on each GPU, the reserve included."""
        return (sum(self.fixed().values()) + batch * self.image(checkpointing)) / (1 - RESERVE)

    def largest(self, memory: float, checkpointing: bool) -> int:
        """Images a GPU of ``memory`` bytes holds; 0 if none."""
        free = memory * (1 - RESERVE) - sum(self.fixed().values())
        return max(0, int(free // self.image(checkpointing)))

    def flops(self, checkpointing: bool = False) -> float:
        """FLOPs of one image of training: forward and backward of what trains, forward of a frozen tower."""
        found = self.footprint
        again = found.unet_flops if checkpointing else 0.0
        return 3 * found.unet_flops + (3 if self.learnable else 1) * found.text_flops + again

    def images_per_second(self, peak: float, share: float, checkpointing: bool = False) -> float:
        """Of all GPUs together.

        Args:
            peak: FLOP/s of one GPU; share: of it that is reached.
        """
        return self.gpus * peak * share / self.flops(checkpointing)

    def checkpoint_bytes(self) -> float:
        """Weights, moments and average of one checkpoint file."""
        return 4 * (self.footprint.unet + self.footprint.text) + (12 if self.average else 8) * self.trained

"""Hidden states of a frozen text tower, kept per text so that a text that comes again costs no forward pass. Source: own."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from meddiff.models.pieces import in_pieces
from meddiff.models.text.tower import TextTower

#: Texts encoded together on a GPU; always that many, so that every text is computed by the same kernels.
GPU_ROWS = 16

#: What the states hang on beside the tokens: where and in which type the tower computes, and its weights.
Stamp = tuple[object, ...]


class TextCache:
    """Least recently used states are dropped when they take more than ``limit`` bytes; the newest always stay.

    The states of a text do not depend on what else is in a batch or in the cache, or a resumed run, whose cache is empty,
    would not go on with the same bits. The last bits of a product of matrices hang on their shapes, so texts are encoded in
    one shape only: on a CPU, and wherever torch is told to be deterministic, each by itself; on a GPU, where that would
    mean hundreds of small kernels a text, in blocks of :data:`GPU_ROWS`, filled up with the last text.

    States are kept where and in the type in which the tower gives them. They are forgotten when the tower's weights change
    (in place, or by others in their place), and when the tower moves or computes in another type (autocast).

    Args:
        limit: bytes of all states together.

    Attributes:
        size: bytes held.
        encoded: texts encoded so far; the rest were found.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size, self.encoded = limit, 0, 0
        self._states: OrderedDict[tuple[Stamp, bytes], Tensor] = OrderedDict()
        self._weights: Stamp = ()

    def __len__(self) -> int:
        return len(self._states)

    @staticmethod
    def serves(tower: TextTower) -> bool:
        """Whether states of this tower may be kept: nothing of it trains, drops out, or is shared among processes.

        A shared tower gathers its weights from all processes when it runs, and not all of them miss the same texts.
        """
        return not tower.training and not any(p.requires_grad or in_pieces(p) for p in tower.parameters())

    def __call__(self, tower: TextTower, tokens: Tensor) -> Tensor:
        """States (B, L, D) on the tower's device, without gradient.

        Args:
            tower: one that is served.
            tokens: (B, L) ids; on the host, or each call waits for the device.
        """
        self._forget_changed(tower)
        device = next(tower.parameters()).device
        kind = computing(device)
        rows = tokens.cpu()
        keys = [(kind, row.numpy().tobytes()) for row in rows]
        found = {key: self._states[key] for key in keys if key in self._states}
        missing = {key: place for place, key in enumerate(keys) if key not in found}
        # states made in inference mode (a validation) could not be used by a training step afterwards
        with torch.inference_mode(False), torch.no_grad():
            fresh = self._encode(tower, rows[list(missing.values())].clone(), device) if missing else []
            found |= dict(zip(missing, fresh, strict=True))
        for key in keys:
            self._keep(key, found[key])
        while self.size > self.limit and len(self._states) > 1:
            self.size -= self._states.popitem(last=False)[1].nbytes
        return torch.stack([found[key] for key in keys])

    def _encode(self, tower: TextTower, tokens: Tensor, device: torch.device) -> list[Tensor]:
        self.encoded += len(tokens)
        together = device.type == "cuda" and not torch.are_deterministic_algorithms_enabled()
        size = GPU_ROWS if together else 1
        states: list[Tensor] = []
        for block in tokens.split(size):
            full = torch.cat([block, block[-1:].expand(size - len(block), -1)])
            made = tower(full.to(device, non_blocking=True))
            states += [made[place].clone() for place in range(len(block))]  # a view would keep the whole block
        return states

    def _keep(self, key: tuple[Stamp, bytes], states: Tensor) -> None:
        if key not in self._states:
            self._states[key] = states
            self.size += states.nbytes
        self._states.move_to_end(key)

    def _forget_changed(self, tower: TextTower) -> None:
        stamp = weights_stamp(tower)
        if stamp != self._weights:
            self._weights = stamp
            self._states.clear()
            self.size = 0


def weights_stamp(module: nn.Module) -> Stamp:
    """Changes with every change of the weights that torch knows of: each one's place in memory and how often it was written."""
    return tuple((value.data_ptr(), value._version) for value in module.parameters())


def computing(device: torch.device) -> Stamp:
    """Where and in which type products of matrices are computed now."""
    automatic = torch.is_autocast_enabled(device.type)
    return (str(device), torch.get_autocast_dtype(device.type) if automatic else None)

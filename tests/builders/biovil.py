"""Small encoders of BioViL-T's interface: one direction for brightness, one for darkness."""

from pathlib import Path

import torch
from torch import Tensor, nn

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bright", "dark")


class Brightness(nn.Module):
    """Patches of 32 pixels: (brightness, darkness)."""

    def forward(self, image: Tensor) -> Tensor:
        bright = nn.functional.avg_pool2d(image[:, :1], 32)
        return torch.cat([bright, 1 - bright], dim=1)


class Asked(nn.Module):
    """Token 5 asks for the first direction, all else for the second."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        bright = (ids == 5).any(dim=1).float()
        return torch.stack([bright, 1 - bright], dim=1)


def make_biovil(folder: Path) -> Path:
    """Both encoders and their vocabulary."""
    torch.jit.script(Brightness()).save(folder / "image.pt")
    torch.jit.script(Asked()).save(folder / "text.pt")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder

"""What is trained, on what: a line for each part of the model, before the first step. Source: own."""

from collections.abc import Iterable, Iterator

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from torch import nn

from meddiff.common.progress import say

#: Above this a number is told in millions.
MILLION = 1_000_000


class Parts(ModelSummary):
    """Prints the device, and how many parameters of each part learn and how many are frozen.

    Rows of a table of tokens are told apart: most of a small tower's parameters are such rows, and a row learns only where a
    caption has its token. Parts without parameters (the noise schedule, running means) are left out.
    """

    def __init__(self) -> None:
        super().__init__(max_depth=1)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for line in (device_line(trainer), *part_lines(pl_module)):
                say(line)


def device_line(trainer: Trainer) -> str:
    """On how many devices of which kind it computes, and in which precision."""
    kind = trainer.strategy.root_device.type
    ranks = trainer.world_size
    where = {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}.get(kind, kind.upper())
    many = f"{ranks} {where} processes" if ranks > 1 else f"the {where}"
    number = torch.get_num_threads()
    threads = f" with {number} thread{'s' if number > 1 else ''}" if kind == "cpu" else ""
    return f"training on {many}{threads}, precision {trainer.precision}"


def part_lines(module: nn.Module) -> Iterator[str]:
    """A line for each part that has parameters.

    Example:
        >>> list(part_lines(nn.ModuleDict({"body": nn.Linear(3, 2), "words": nn.Embedding(5, 2).requires_grad_(False)})))
        ['  body: 8 parameters, learned', '  words: 10 parameters, frozen; 10 of them are its 5 rows of tokens']
    """
    parts = [one for one in _parts(module) if any(True for _ in one[1].parameters())]
    for name, part in parts:
        learned, frozen = _count(part.parameters(), True), _count(part.parameters(), False)
        if learned and frozen:
            text = f"{_number(learned + frozen)} parameters, {_number(learned)} learned and {_number(frozen)} frozen"
        else:
            text = f"{_number(learned or frozen)} parameters, {'learned' if learned else 'frozen'}"
        yield f"  {name.replace('_', ' ')}: {text}{_tokens(part)}"


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The children; of one that only holds a model, the model's."""
    for name, child in module.named_children():
        if name == "model" and any(True for _ in child.children()):
            yield from _parts(child)
        else:
            yield name, child


def _count(parameters: Iterable[nn.Parameter], learned: bool) -> int:
    return sum(one.numel() for one in parameters if one.requires_grad == learned)


def _tokens(part: nn.Module) -> str:
    """How many of its parameters are rows of tables of tokens."""
    tables = [one.weight for one in part.modules() if isinstance(one, nn.Embedding)]
    table = max(tables, key=torch.numel, default=None)
    if table is None or table.numel() == 0:
        return ""
    return f"; {_number(table.numel())} of them are its {len(table):,} rows of tokens"


def _number(value: int) -> str:
    return f"{value / MILLION:,.1f} million" if value >= 10 * MILLION else f"{value:,}"

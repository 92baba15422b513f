"""Work shared among processes. Source: own."""

from typing import Any

import torch


def gather_rows(rows: list[Any]) -> list[Any]:
    """The rows of all ranks on every rank, in the order of ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    parts: list[list[Any] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part or []]

"""Token embeddings of which only the trained rows are stored; the others are drawn again from a seed. Source: own."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.weights.sources import Config

ROWS = "text_model.embeddings.token_embedding.rows"
TABLE = "text_model.embeddings.token_embedding.weight"
ROW_IDS = "text_model.embeddings.token_embedding.row_ids"


def untrained_rows(seed: int, std: float, vocab_size: int, width: int) -> Tensor:
    """Token embeddings as they are before any training: (vocab_size, width) float32, a function of its arguments."""
    draw = generator(seed, "token rows").standard_normal((vocab_size, width), dtype=np.float32)
    return torch.from_numpy(draw).mul_(std)


def expand_rows(state: Mapping[str, Tensor], config: Config, where: str = "text_encoder") -> dict[str, Tensor]:
    """Put the embedding table together again when only its trained rows are stored; other states pass unchanged.

    Args:
        state: tensors by name; on "meta" the table is one of its shape and no more.
        where: part and file, for errors.

    Raises:
        UserError: rows and their ids do not belong together, or the config does not say how the others are drawn.
    """
    if ROWS not in state and ROW_IDS not in state:
        return dict(state)
    drawn = config.get("token_rows")
    if not isinstance(drawn, dict) or not {"seed", "std"} <= drawn.keys():
        raise UserError(f"{where}: its config.json has no token_rows, but its weights hold trained rows only.")
    missing = [name for name in (ROWS, ROW_IDS) if name not in state]
    if missing:
        raise UserError(
            f"{where} does not fit: {missing[0]} is missing: give the weights that belong to its config.json."
        )
    rows, ids, size, width = state[ROWS], state[ROW_IDS], config["vocab_size"], config["hidden_size"]
    if rows.shape != (len(ids), width) or ids.ndim != 1 or ids.is_floating_point() or not rows.is_floating_point():
        raise UserError(
            f"{where} does not fit: {ROWS} is {tuple(rows.shape)} and {ROW_IDS} {tuple(ids.shape)} instead of (R, {width}) "
            f"floats and (R,) integers: give the weights that belong to its config.json."
        )
    rest = {name: value for name, value in state.items() if name not in (ROWS, ROW_IDS)}
    if ids.is_meta:
        return {**rest, TABLE: rows.new_empty(size, width)}
    ids = ids.long()
    if len(ids) and (ids.min() < 0 or ids.max() >= size or len(ids.unique()) < len(ids)):
        raise UserError(
            f"{where} does not fit: {ROW_IDS} are no {len(ids)} different numbers below {size}: fetch it again."
        )
    table = untrained_rows(drawn["seed"], drawn["std"], size, width)
    table[ids] = rows.float()
    return {**rest, TABLE: table}

"""Token embeddings of which only the trained rows are stored; the others are drawn again from a seed. Source: own."""

import numpy as np
import torch
from torch import Tensor

from meddiff.common.draws import generator
from meddiff.common.errors import UserError
from meddiff.models.weights.sources import Config

ROWS = "text_model.embeddings.token_embedding.rows"
ROW_IDS = "text_model.embeddings.token_embedding.row_ids"


def untrained_rows(seed: int, std: float, vocab_size: int, width: int) -> Tensor:
    """Token embeddings as they are before any training: (vocab_size, width) float32, a function of its arguments."""
    draw = generator(seed, "token rows").standard_normal((vocab_size, width), dtype=np.float32)
    return torch.from_numpy(draw).mul_(std)


def expand_rows(state: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Put the embedding table together again when only its trained rows are stored; other states pass unchanged."""
    if ROWS not in state:
        return state
    if "token_rows" not in config:
        raise UserError("text_encoder: its config.json has no token_rows, but its weights hold trained rows only.")
    drawn = config["token_rows"]
    table = untrained_rows(drawn["seed"], drawn["std"], config["vocab_size"], config["hidden_size"])
    table[state[ROW_IDS].long()] = state[ROWS].float()
    rest = {name: value for name, value in state.items() if name not in (ROWS, ROW_IDS)}
    return {**rest, "text_model.embeddings.token_embedding.weight": table}

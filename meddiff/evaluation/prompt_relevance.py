"""Relevance of the words of prompts along whole paths, by word and by role, for each schedule: the paper's curves and table.

Source: Park, Ju and Lee (2024), spec section B5; roles: :mod:`meddiff.attribution.token_roles`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from meddiff.attribution.relevance import cost, relevance
from meddiff.attribution.relevance_by_role import RoleSum, added_up, by_role, published
from meddiff.attribution.token_roles import caption_roles, report_roles, token_kinds, word_groups
from meddiff.attribution.trajectory import Trajectory
from meddiff.evaluation.measurement import Row, Table
from meddiff.evaluation.undisturbed import undisturbed
from meddiff.models.latent_diffusion import LatentDiffusion

WORDS = ("schedule", "prompt", "word", "place", "timestep", "sum", "share", "minmax")
ROLES = ("schedule", "role", "source", "total", "number", "per_step")


def prompt_relevance(
    model: LatentDiffusion,
    paths: Mapping[str, Sequence[Trajectory]],
    told: Callable[[int], object] = lambda _: None,
) -> dict[str, Table]:
    """Tables ``relevance_by_word`` and ``relevance_by_role``, the published sums of scenes beside the measured ones.

    A prompt that names two things as a scene does has subject, relation and object; any other has those of a report.

    Args:
        paths: schedule -> the path of each prompt, whole.
        told: called with 1 for each path.
    """
    tokenizer = model.text_encoder.tokenizer
    words: list[Row] = []
    sums: list[RoleSum] = []
    for schedule, some in paths.items():
        found_roles = []
        for path in some:
            told(1)
            names, groups = word_groups(tokenizer, path.text)
            if not names:
                continue
            with undisturbed(model):
                found = relevance(model, path, groups)
            kinds = token_kinds(tokenizer, path.text)
            roles = caption_roles(tokenizer, path.text) or report_roles(tokenizer, path.text)
            found_roles.append(by_role(found, roles, kinds["words"]))
            inside = (groups > 0).float()  # (K, L)
            total, share = found.sums @ inside.T, found.share @ inside.T  # (S, K) each
            minmax = torch.nan_to_num(found.minmax(kinds["words"])) @ groups.T  # (S, K), a mean over a word's tokens
            for k, name in enumerate(names):
                for s, timestep in enumerate(path.timesteps.tolist()):
                    values = {"sum": float(total[s, k]), "share": float(share[s, k]), "minmax": float(minmax[s, k])}
                    words.append(
                        {
                            "schedule": schedule,
                            "prompt": path.text,
                            "word": name,
                            "place": k,
                            "timestep": timestep,
                            **values,
                        }
                    )
        sums += added_up(schedule, found_roles)
    scene = any(one.role == "subject" for one in sums)
    rows: list[Row] = [
        {
            **{"schedule": one.schedule, "role": one.role, "source": one.source, "total": one.total},
            **{"number": one.number, "per_step": one.per_step if one.number else None},
        }
        for one in (*sums, *(published() if scene else ()))
    ]
    return {"relevance_by_word": Table(words, WORDS), "relevance_by_role": Table(rows, ROLES)}


def relevance_cost(paths: int, steps: int) -> int:
    """U-Net evaluations of :func:`prompt_relevance`."""
    return paths * cost(steps)

"""The command that makes shards again: that of the manifest with three things replaced, and nothing of it acts."""

import shlex
from dataclasses import replace

import pytest

from meddiff.shards.manifest import Manifest
from meddiff.shards.remake import remake_command
from tests.builders.shard_samples import make_header

COMMAND = "lightning prepare mimic-cxr --root '/data/my cohort' --vae=old --limit 5 --out x --resolution 512"


def words(manifest: Manifest, command: str) -> list[str]:
    return shlex.split(remake_command(replace(manifest, command=command), "new folder", "my vae", 768))


def test_vae_resolution_and_out_are_replaced_and_all_else_stays() -> None:
    found = words(make_header(), COMMAND)
    assert found[:7] == ["lightning", "prepare", "mimic-cxr", "--root", "/data/my cohort", "--limit", "5"]
    assert found[7:] == ["--vae", "my vae", "--resolution", "768", "--out", "new folder"]


@pytest.mark.parametrize("command", ["", "test", "rm -rf /", "lightning prepare", "lightning prepare '$(x)'", "a 'b"])
def test_without_a_command_the_cohort_s_name_is_what_is_known(command: str) -> None:
    found = words(replace(make_header(), cohort="vindr_cxr", options={"a": 1}), command)
    assert found[:5] == ["lightning", "prepare", "vindr-cxr", "--root", "DOWNLOAD"]
    odd = words(replace(make_header(), cohort="x; touch y", options={}), command)
    assert odd[:3] == ["lightning", "prepare", "COHORT"]


def test_phantoms_that_were_made_at_first_use_keep_their_options() -> None:
    options = {
        "n": 60,
        "shift": None,
        "confounders": ["tube:Edema"],
        "mirrored_pairs": False,
        "text": "grammar",
        "A b": 1,
    }
    found = words(replace(make_header(), cohort="phantom", options=options), "")
    assert found[2:11] == [
        "phantom", "--n", "60", "--confounders", '["tube:Edema"]', "--mirrored_pairs", "false", "--text", "grammar",
    ]  # fmt: skip
    assert "A b" not in " ".join(found)

"""Run folders as they were written before a measurement got its name of today."""

from pathlib import Path

import torch

from meddiff.runs.earlier_names import EARLIER


def age(run: Path) -> Path:
    """Write the names of earlier days into every text file and checkpoint of ``run``; says by failing that there were some."""
    touched = 0
    for file in run.rglob("*"):
        if file.suffix in (".csv", ".json", ".jsonl", ".yaml") and file.is_file():
            text = file.read_text(encoding="utf-8")
            for earlier, now in EARLIER.items():
                touched += now in text
                text = text.replace(now, earlier)
            file.write_text(text, encoding="utf-8")
        elif file.suffix == ".ckpt" and not file.is_symlink():
            state = torch.load(file, weights_only=True)
            for found in state["callbacks"].values():
                if isinstance(found, dict) and isinstance(found.get("latest"), dict):
                    found["latest"] = {_earlier(name): value for name, value in found["latest"].items()}
            torch.save(state, file)
    assert touched, f"nothing in {run} has a name to be aged"
    return run


def _earlier(name: str) -> str:
    for earlier, now in EARLIER.items():
        name = name.replace(now, earlier)
    return name

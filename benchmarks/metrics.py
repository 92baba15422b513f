"""Milliseconds per sample of all grounding scores, beside plain scikit-learn: see `benchmarks/metrics_speed.py`.

    python benchmarks/metrics.py [--samples 32] [--grid 64] [--size 512]

A script's own folder comes first on its path, so every benchmark that asks for the package ``metrics`` finds this file.
Under that name it hands over to the package.
"""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    from metrics_speed import main

    main()
elif __name__ == "metrics":
    here = str(Path(__file__).resolve().parent)
    path, sys.path = sys.path, [entry for entry in sys.path if str(Path(entry).resolve()) != here]
    del sys.modules["metrics"]
    try:
        importlib.import_module("metrics")
    finally:
        sys.path = path

"""One prepared cohort for all tests that look at shards of records or write them again."""

from pathlib import Path

import pytest

from tests.builders.folder_tree import make_folder
from tests.builders.prepared_folder import prepare_folder


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort for `prepare folder` that no test changes."""
    return make_folder(tmp_path_factory.mktemp("trees") / "plain")


@pytest.fixture(scope="session")
def whole(tree: Path, vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of it, written without a stop; no test changes them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    prepare_folder(tree, out, vae_folder)
    return out

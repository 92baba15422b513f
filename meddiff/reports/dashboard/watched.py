"""The runs that a dashboard shows: found anew, and read anew where something was written. Source: own."""

import threading
from collections.abc import Sequence
from pathlib import Path

from meddiff.common.errors import UserError
from meddiff.runs.distinct_names import distinct_names
from meddiff.runs.folder import Run, read_run
from meddiff.runs.found import State, run_folders, state_of


class Watched:
    """Runs of a folder, or named ones.

    Args:
        folder: everything below it that is a run, also what comes later; None watches ``runs`` alone.
        runs: run folders.

    Attributes:
        version: counts the changes.
    """

    def __init__(self, folder: Path | None, runs: Sequence[Path] = ()) -> None:
        self.folder, self.named = folder, list(runs)
        self.version = 0
        self._states: dict[Path, State] = {}
        self._read: dict[Path, tuple[State, Run, str]] = {}
        self._lock = threading.Lock()
        self.scan()

    @property
    def root(self) -> Path:
        """The folder from which runs are named in addresses."""
        return self.folder if self.folder is not None else self.named[0].parent

    def scan(self) -> bool:
        """Look for changes; whether there are any. A few ms for a hundred runs: files are looked at, not read."""
        folders = [*self.named, *(run_folders(self.folder) if self.folder is not None else ())]
        states = {folder: state_of(folder) for folder in dict.fromkeys(folders)}
        with self._lock:
            changed = states != self._states
            self._states = states
            self.version += changed
        return changed

    def runs(self) -> list[Run]:
        """The runs as they are now, under names that differ; one that was removed in between is left out."""
        with self._lock:
            states, found = dict(self._states), {}
            for folder, state in states.items():
                known = self._read.get(folder)
                if known is not None and known[0] == state:
                    found[folder] = known
                    continue
                try:
                    run = read_run(folder)
                    found[folder] = (state, run, run.name)
                except UserError:
                    continue
            self._read = found
            runs = [run for _, run, _ in found.values()]
            for _, run, name in found.values():
                run.name = name  # as it is called by itself: who else is there may have changed
            distinct_names(runs)
        return runs

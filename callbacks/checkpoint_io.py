"""How Lightning's checkpoints reach the disk: whole, durable, with a check sum beside them. Source: own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _is_local_file_protocol

from meddiff.common.check_sums import remove_sum
from meddiff.common.errors import UserError
from meddiff.runs.checkpoints import broken, read_checkpoint, write_checkpoint


class DurableCheckpointIO(TorchCheckpointIO):
    """Lightning's own writes into a buffer, then into ``TMPDIR``, and copies from there: a kill leaves a cut newest file.

    This one writes beside the target, flushes and renames (:func:`meddiff.runs.checkpoints.write_checkpoint`). Paths that
    are not local files are left to Lightning's.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        """Write one; an older file of that name stays until this one is on the disk.

        Raises:
            OSError: not writable, or the disk is full.
        """
        if storage_options is not None or not _is_local_file_protocol(path):
            super().save_checkpoint(checkpoint, path, storage_options)
        else:
            write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., object] | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read one; of one in pieces each process reads all.

        Raises:
            UserError: cut, empty or foreign.
        """
        if _is_local_file_protocol(path) and Path(path).is_dir():
            return read_checkpoint(Path(path), to_train=True)
        try:
            content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only)
        except Exception as error:
            sentence = broken(Path(path)) if _is_local_file_protocol(path) and Path(path).is_file() else None
            if sentence is None:
                raise
            raise UserError(sentence) from error
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one and its check sum."""
        if _is_local_file_protocol(path):
            remove_sum(Path(path))
        super().remove_checkpoint(path)

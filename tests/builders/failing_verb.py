"""A verb of the command that fails in the way its argument names; planted in the place of a real one."""

import errno
import os

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset

from meddiff.common.errors import UserError
from meddiff.common.ranges import POSITIVE, range_problems

SECRET = "p10003245 had an effusion"


class Dies(Dataset[int]):
    """A worker that is killed, as for want of memory."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, item: int) -> int:
        os._exit(1)


def main(arguments: list[str]) -> int:
    """Fail."""
    kind = arguments[0]
    if kind == "disk":
        raise OSError(errno.EIO, os.strerror(errno.EIO), "shards/0.tar")
    if kind == "permission":
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret\x1b[2J")
    if kind == "long":
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 300)
    if kind == "lightning":
        raise MisconfigurationException("first line\nNo such strategy: `warp`.")
    if kind == "torch":
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    if kind == "worker":
        next(iter(DataLoader(Dies(), num_workers=1)))
    if kind == "memory":
        raise MemoryError
    if kind == "user":
        raise UserError("it can be mended")
    if kind == "fault":
        range_problems(None, {SECRET: POSITIVE})  # type: ignore[arg-type]
    if kind == "caused":
        try:
            range_problems(None, {SECRET: POSITIVE})  # type: ignore[arg-type]
        except AttributeError as error:
            raise KeyError(SECRET) from error
    return 0

"""Callbacks and loggers."""

from callbacks.checkpoint import RunCheckpoint
from callbacks.progress import ImagesProgressBar
from callbacks.tracking import JsonlLogger, RunWandbLogger

__all__ = ["ImagesProgressBar", "JsonlLogger", "RunCheckpoint", "RunWandbLogger"]

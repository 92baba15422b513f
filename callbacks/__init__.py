"""Callbacks and loggers."""

from callbacks.checkpoint import RunCheckpoint
from callbacks.image_writer import ImageWriter
from callbacks.progress import ImagesProgressBar
from callbacks.tracking import JsonlLogger, RunWandbLogger

__all__ = ["ImageWriter", "ImagesProgressBar", "JsonlLogger", "RunCheckpoint", "RunWandbLogger"]

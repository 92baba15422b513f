"""Callbacks and loggers."""

from callbacks.attention_gallery import AttentionGalleryCallback
from callbacks.checkpoint import RunCheckpoint
from callbacks.coco_grounding import CocoGroundingCallback
from callbacks.export import ModelExport
from callbacks.fidelity import FidelityCallback
from callbacks.grounding import GroundingCallback
from callbacks.image_writer import ImageWriter
from callbacks.progress import ImagesProgressBar
from callbacks.prototypes import PrototypesCallback
from callbacks.saliency import DenoisingSaliencyCallback
from callbacks.throughput import ThroughputCallback
from callbacks.tracking import JsonlLogger, RunWandbLogger
from callbacks.tradeoff import TradeoffCallback

__all__ = [
    "AttentionGalleryCallback",
    "CocoGroundingCallback",
    "DenoisingSaliencyCallback",
    "FidelityCallback",
    "GroundingCallback",
    "ImageWriter",
    "ImagesProgressBar",
    "JsonlLogger",
    "ModelExport",
    "PrototypesCallback",
    "RunCheckpoint",
    "RunWandbLogger",
    "ThroughputCallback",
    "TradeoffCallback",
]

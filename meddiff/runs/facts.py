"""What is known of a run from its configuration alone, for whoever opens, evaluates, draws or reports it. Source: own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meddiff.runs.values import nested


@dataclass(frozen=True)
class Facts:
    """What is known of a run without building anything.

    Attributes:
        run: its folder; None for a checkpoint that lies elsewhere.
        checkpoint: the file that is meant; None where none was looked for.
        config: the resolved configuration; empty for a checkpoint that lies elsewhere.
    """

    run: Path | None
    checkpoint: Path | None
    config: Mapping[str, object]

    @property
    def name(self) -> str:
        """As configured, else of the folder, else of the checkpoint."""
        if self.config.get("name"):
            return str(self.config["name"])
        if self.run is not None:
            folder = self.run.resolve()
            return folder.parent.name or folder.name
        return "" if self.checkpoint is None else self.checkpoint.stem

    @property
    def seed(self) -> int:
        """Of training (``seed_everything``); 0 where none was set."""
        seed = self.config.get("seed_everything")
        return int(seed) if isinstance(seed, int) else 0

    @property
    def encoder(self) -> str:
        """ "frozen" or "learnable"; "" where the configuration does not say."""
        frozen = nested(self.config, "model", "init_args", "freeze_text_encoder")
        if not isinstance(frozen, bool):
            return ""
        return "frozen" if frozen else "learnable"

    @property
    def prompt(self) -> str:
        """What the captions are; "" where the configuration does not say."""
        return str(nested(self.config, "data", "init_args", "prompt") or "")

    @property
    def reads_text(self) -> bool:
        """Whether a text changes what the model draws: one with prototypes may have no text encoder."""
        kind, arguments = self.section("model")
        return not (kind or "").endswith(".PatronusModule") or arguments.get("text_encoder") is not None

    def section(self, name: str) -> tuple[str | None, dict[str, object]]:
        """Class path and arguments of "model" or "data"."""
        given = self.config.get(name)
        if not isinstance(given, dict) or not given.get("class_path"):
            return None, {}
        return str(given["class_path"]), dict(given.get("init_args") or {})

"""Images trained on as the x-axis of every curve in W&B. Source: own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from wandb import Run

AXIS = "images"
#: What counts otherwise: these stay on W&B's own axis.
OTHERS = (AXIS, "trainer/global_step")
_drawn: "WeakKeyDictionary[Run, set[str]]" = WeakKeyDictionary()


def draw_over_images(run: "Run", keys: Iterable[str]) -> None:
    """Have the curves of ``keys`` drawn over ``images``, each by its exact name.

    Lightning's logger says the same of ``*`` and the optimiser's step; of two patterns that fit W&B takes one at random,
    an exact name comes before any. A row without ``images`` gets the last value. Nothing happens before a run has
    logged ``images``: what it has no count of is drawn as Lightning says.
    """
    keys, drawn = set(keys), _drawn.setdefault(run, set())
    if AXIS in keys and AXIS not in drawn:
        run.define_metric(AXIS)
        drawn.add(AXIS)
    if AXIS not in drawn:
        return
    for key in sorted(keys - drawn - set(OTHERS)):
        run.define_metric(key, step_metric=AXIS, step_sync=True)
        drawn.add(key)

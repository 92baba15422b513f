"""Phantoms made for controls: mirrored pairs, and images with several findings each. Source: own."""

from meddiff.phantoms import PhantomOptions
from meddiff.preparation.prepare_phantom import phantom_folder, prepare_phantom


def mirrored_cohort(options: PhantomOptions, vae: str, n: int = 160) -> str:
    """Shards of ``n`` phantoms in pairs, of other patients than ``options`` has; written at first use.

    Each pair is one patient with the finding once on either side.
    """
    twins = PhantomOptions(
        n=n, seed=options.seed + 1, mirrored_pairs=True, val=0, fidelity=0, grounding=n, normal=0.0, multiple=0.2
    )
    return _written(twins, vae, show_progress=False)


def crowded_cohort(options: PhantomOptions, vae: str, n: int = 400) -> str:
    """Shards of ``n`` phantoms with two or more findings each, of other patients; written at first use."""
    several = PhantomOptions(n=n, seed=options.seed + 2, val=0, fidelity=0, grounding=n, normal=0.0, multiple=1.0)
    return _written(several, vae, show_progress=True)


def _written(options: PhantomOptions, vae: str, show_progress: bool) -> str:
    folder = phantom_folder(options, vae)
    prepare_phantom(options, folder, vae, show_progress=show_progress)
    return folder

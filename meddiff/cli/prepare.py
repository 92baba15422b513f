"""``lightning prepare COHORT``: from a cohort to latent shards."""

import shlex
from dataclasses import fields

from meddiff.common.errors import UserError
from meddiff.common.outside import terminal
from meddiff.shards.manifest import Manifest

PHANTOM = "phantom"
#: Stable Diffusion 2.0's, where configs/frozen.yaml expects it; docs/stable_diffusion.md.
DEFAULT_VAE = "weights/stable-diffusion-2-base"

STORE_HELP = (
    "latents; images: pictures of every split instead, lossless and without an autoencoder, for models of pixels; or both. "
    "Pictures of the splits of evaluation are stored in any case."
)
SIDE_HELP = (
    "Side of the stored images in pixels.",
    "Side of the stored images in pixels; null means 64 for CelebA and 32 for the others, as published.",
)
ACCESS_HELP = (
    "public, or credentialed: then pictures, captions and keys stay on this machine when a training on them is logged. "
    "Not said is credentialed."
)


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: unknown cohort, bad option, missing VAE.
    """
    try:
        return _prepare(arguments)
    except UserError as error:
        raise UserError(" ".join(str(error).split())) from error  # libraries give reasons in several lines


def _prepare(arguments: list[str]) -> int:
    from meddiff.preparation.cohorts import COHORTS

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: lightning prepare COHORT [options]\n\n  phantom     chest phantoms, rendered: no download")
        print("\n".join(f"  {name:<12}{entry.help}" for name, entry in COHORTS.items()))
        print("\noptions of a cohort: lightning prepare COHORT --help")
        return 0
    name = arguments[0].replace("_", "-")
    if name == PHANTOM:
        return prepare_phantom_verb(arguments[1:])
    if name in COHORTS:
        return prepare_cohort_verb(name, arguments[1:])
    raise UserError(f"No cohort {arguments[0]!r}: `lightning prepare` reads {', '.join((PHANTOM, *COHORTS))}.")


def prepare_cohort_verb(name: str, arguments: list[str]) -> int:
    """``lightning prepare`` of a real cohort."""
    from meddiff.cli.parsing import SentenceParser
    from meddiff.preparation.cohorts import COHORTS, reader
    from meddiff.preparation.prepare_cohort import (
        PREVIEW,
        REJECTED,
        Machine,
        check_output,
        dry_run,
        prepare_reading,
        print_funnel,
        read_cohort,
    )
    from meddiff.shards.access import Access
    from meddiff.shards.stored import Store

    _, options_class = reader(name)
    parser = SentenceParser(
        prog=f"lightning prepare {name}", description=f"{COHORTS[name].help}; writes latent shards."
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options below.")
    parser.add_argument("--root", type=str, required=True, help="Folder of the downloaded cohort; only read.")
    parser.add_argument("--out", type=str | None, default=None, help="Folder of the shards; not needed for a dry run.")
    parser.add_argument("--vae", type=str, default=DEFAULT_VAE, help="Autoencoder: diffusers folder or hub:ORG/NAME.")
    parser.add_argument("--store", type=Store, default="latents", help=STORE_HELP)
    usual = None if name == "torchvision" else 512
    parser.add_argument("--resolution", type=int | None, default=usual, help=SIDE_HELP[name == "torchvision"])
    parser.add_argument("--limit", type=int | None, default=None, help="At most so many images of each split.")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="Print the funnel and write nothing.")
    if name == "folder":  # the others' access is known
        parser.add_argument("--access", type=Access, default="credentialed", help=ACCESS_HELP)
    parser.add_class_arguments(Machine)
    parser.add_class_arguments(options_class)
    parsed = parser.parse_args(arguments)
    if parsed.out is None and not parsed.dry_run:
        raise UserError(f"prepare {name} needs --out, the folder of the shards (or --dry_run).")
    ready = parser.instantiate_classes(parsed)
    options = options_class(**{one.name: ready[one.name] for one in fields(options_class)})
    machine = Machine(**{one.name: parsed[one.name] for one in fields(Machine)})
    cohort = name
    if name == "torchvision":
        from meddiff.preparation.cohorts.torchvision_sets import SIDES

        cohort, parsed.resolution = parsed.dataset, parsed.resolution or SIDES[parsed.dataset]
    if not parsed.dry_run:
        check_output(parsed.out, cohort, parsed.vae, parsed.resolution, parsed.store)
    reading = read_cohort(name, parsed.root, options, parsed.limit)
    if parsed.dry_run:
        dry_run(reading)
        return 0
    command = shlex.join(["lightning", "prepare", name, *arguments])
    access = parsed.get("access")
    manifest = prepare_reading(
        reading, parsed.out, parsed.vae, parsed.resolution, machine, command, access=access, store=parsed.store
    )
    if manifest is not None:
        print_funnel(manifest.funnel)
        out = terminal(parsed.out)
        print(f"what was left out, and why: {out}/{REJECTED}; look at {out}/{PREVIEW}")
        _show(manifest, parsed.out)
    return 0


def _show(manifest: Manifest, out: str) -> None:
    for split, counts in manifest.counts.items():
        labels = ", ".join(f"{terminal(label)} {number}" for label, number in counts["labels"].items())
        boxes = ", ".join(f"{number} boxes {what}" for what, number in counts.get("boxes", {}).items())
        print(
            f"{terminal(split):<12}{counts['samples']:>8} images   "
            + "; ".join(part for part in (labels, boxes) if part)
        )
    latents = [] if manifest.latent == "none" else [f"{list(manifest.latent_shape)} latents"]
    pictures = [f"pictures of {manifest.resolution} px"] if manifest.pictures == "all" else []
    print(f"wrote {terminal(out)} ({', '.join([f'{len(manifest.shards)} shards', *latents, *pictures])})")


def prepare_phantom_verb(arguments: list[str]) -> int:
    """``lightning prepare phantom``."""
    from meddiff.cli.parsing import SentenceParser
    from meddiff.phantoms import PhantomOptions
    from meddiff.preparation.prepare_phantom import DEFAULT_VAE as PHANTOM_VAE
    from meddiff.preparation.prepare_phantom import prepare_phantom
    from meddiff.shards.stored import Store

    parser = SentenceParser(
        prog="lightning prepare phantom", description="Render chest phantoms and write latent shards."
    )
    parser.add_argument("--out", type=str, required=True, help="Folder of the shards.")
    parser.add_argument("--vae", type=str, default=PHANTOM_VAE, help="Autoencoder: diffusers folder or hub:ORG/NAME.")
    parser.add_argument("--store", type=Store, default="latents", help=STORE_HELP)
    parser.add_argument("--processes", type=int | None, default=None, help="Worker processes; null means one a core.")
    parser.add_argument(
        "--confounder",
        action="append",
        type=str,
        metavar="NAME:FINDING[:R]",
        help="One confounder and its correlation (default 0.7) with a finding; repeatable, added to --confounders.",
    )
    parser.add_class_arguments(PhantomOptions)
    parsed = parser.parse_args(arguments)
    values = {field.name: parsed[field.name] for field in fields(PhantomOptions)}
    values["confounders"] = (*values["confounders"], *(parsed.confounder or ()))
    options = PhantomOptions(**values)
    command = shlex.join(["lightning", "prepare", "phantom", *arguments])
    manifest = prepare_phantom(
        options, parsed.out, parsed.vae, command=command, processes=parsed.processes, store=parsed.store
    )
    _show(manifest, parsed.out)
    return 0

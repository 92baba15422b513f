"""``lightning prepare COHORT``: from a cohort to latent shards."""

import shlex
from dataclasses import asdict, fields

from common.errors import UserError

COHORTS = ("phantom",)


def main(arguments: list[str]) -> int:
    """Parse and run; returns the exit code.

    Raises:
        UserError: unknown cohort, bad option, missing VAE.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: lightning prepare COHORT [options]\n\ncohorts: {', '.join(COHORTS)}")
        print("options of a cohort: lightning prepare COHORT --help")
        return 0
    if arguments[0] not in COHORTS:
        raise UserError(f"No cohort {arguments[0]!r}: `lightning prepare` reads {', '.join(COHORTS)}.")
    return prepare_phantom_verb(arguments[1:])


def prepare_phantom_verb(arguments: list[str]) -> int:
    """``lightning prepare phantom``."""
    from cli.parsing import SentenceParser
    from preparation.phantom import PhantomOptions
    from preparation.prepare_phantom import DEFAULT_VAE, prepare_phantom

    parser = SentenceParser(
        prog="lightning prepare phantom", description="Render chest phantoms and write latent shards."
    )
    parser.add_argument("--out", type=str, required=True, help="Folder of the shards.")
    parser.add_argument("--vae", type=str, default=DEFAULT_VAE, help="Autoencoder: diffusers folder or hub:ORG/NAME.")
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
    manifest = prepare_phantom(options, parsed.out, parsed.vae, command=command, processes=parsed.processes)
    for split, counts in manifest.counts.items():
        print(
            f"{split:<12}{counts['samples']:>8} images   " + ", ".join(f"{k} {v}" for k, v in counts["labels"].items())
        )
    print(f"wrote {parsed.out} ({len(manifest.shards)} shards, {asdict(manifest)['latent_shape']} latents)")
    return 0

"""``python -m meddiff``: the command where another package's `lightning` stands in front on PATH."""

from meddiff.cli.main import main

main()

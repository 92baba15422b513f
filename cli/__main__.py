"""``python -m cli``: the command where another package's `lightning` stands in front on PATH."""

from cli.main import main

main()

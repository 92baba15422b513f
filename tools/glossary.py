"""Write docs/glossary.md: what each logged figure means, from the words that the report uses."""

from pathlib import Path

from meddiff.common.files import atomic_open
from meddiff.reports.glossary import page

if __name__ == "__main__":
    with atomic_open(Path(__file__).parents[1] / "docs" / "glossary.md", "w") as stream:
        stream.write(page())

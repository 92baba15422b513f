"""The dashboard's own pages as HTML, from ``templates/`` and ``static/``. Source: own."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from meddiff.reports.page.report import asset, hashed, visible

STATIC = Path(__file__).parent / "static"


def static(name: str) -> str:
    """A file of ``static/``."""
    return (STATIC / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    loader = PackageLoader("meddiff.reports.dashboard")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=visible)


def render_page(name: str, values: Mapping[str, object]) -> str:
    """A page of its own under the strict policy: nothing runs, and nothing is loaded, but what is in it.

    Args:
        name: of a template.
        values: what it shows; texts are escaped.
    """
    css = asset("page.css") + static("dashboard.css")
    script = static("try.js" if name == "try.html" else "live.js")
    policy = (
        f"default-src 'none'; img-src data:; connect-src 'self'; style-src {hashed(css)}; script-src {hashed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(name)
    return page.render({**values, "policy": policy, "assets": {"css": css, "js": script}})

"""Pages as HTML: templates that escape, files put into them, and a policy under which nothing else runs. Source: own."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from meddiff.common.outside import terminal


def visible(value: object) -> object:
    """What a template prints: no character of a text from outside acts on its reader."""
    return value if hasattr(value, "__html__") else terminal(value, newlines=True)


@cache
def environment(room: str) -> Environment:
    """The templates of ``page`` or ``dashboard``."""
    loader = PackageLoader(f"meddiff.reports.{room}")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, finalize=visible)
    found.trim_blocks = found.lstrip_blocks = True
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return found


@cache
def asset(name: str) -> str:
    """A style or script, such as ``page/page.css``."""
    room, _, file = name.partition("/")
    return (Path(__file__).parent / room / "static" / file).read_text(encoding="utf-8")


@cache
def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy(css: str, scripts: Sequence[str], live: bool) -> str:
    """The content security policy of a page with this style and these scripts; ``live``: it may ask its own server."""
    sources = f"img-src data:; style-src {_hash(css)}; script-src {' '.join(map(_hash, scripts))}"
    connect = "; connect-src 'self'" if live else ""
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'{connect}"

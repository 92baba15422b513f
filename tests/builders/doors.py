"""How a door is fuzzed: hostile text, folders it may write in, and a look at everything that happens."""

import contextlib
import os
import unicodedata

from hypothesis import HealthCheck, settings

from meddiff.common.errors import UserError
from tests.builders.audit import watched
from tests.builders.hostile import hostile

#: What a terminal or a table would obey; written anew, not taken from the code under test.
CONTROL = ("Cc", "Cs", "Zl", "Zp")
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
TEXT = hostile("../outside/victim.tar", "../../outside/victim", "train-00000.tar")
READERS = ("aws", "curl", "gsutil", "ais")


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@contextlib.contextmanager
def harmless(*folders, commands=()):
    """The block may end with a UserError, and does nothing outside ``folders``."""
    with watched(*folders, commands=commands) as watch, contextlib.suppress(UserError):
        yield watch
    assert watch.seen == []


@contextlib.contextmanager
def no_commands(folder):
    """No command is found: that one is asked for is what is looked at."""
    search = os.environ["PATH"]
    os.environ["PATH"] = str(folder)
    try:
        yield
    finally:
        os.environ["PATH"] = search


def quiet(text: str) -> bool:
    """No character acts on a terminal, line feeds apart."""
    return not any(letter in BIDI or unicodedata.category(letter) in CONTROL for letter in text.replace("\n", ""))

"""Text that would like to be a command, a path, or more than one line."""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

PARTS = (
    "..", "/", "\\", "\0", "\n", "\r", "\t", " ", ".", "-", "~", "C:", "%2e%2e", "a", "b1", "Edema", "é", "🫁", "\u202e",
    "\x1b[2J", "\x1b]0;x\x07", "\x9b31m", "\u2028", "\ud800", "'", '"', "`", "$(", ")", ";", "&&", "|", ">", "<", "*", "{",
    "}", "touch PWNED", "rm -rf .", "-oProxyCommand=touch PWNED", "__", "x" * 90, "x" * 260, "<img src=x>", "](http://x)",
)  # fmt: skip
#: Whole texts that have hurt somebody.
WHOLE = (
    "", ".", "..", "../x", "../../x", "/tmp/pwned", "a/../../x", "a/b", "..\\x", "C:\\x", "C:x", "~", "~/x", "a\0b", "-rf",
    "'; touch PWNED; '", "`touch PWNED`", "$(touch PWNED)", "a\nok: all well", "\x1b[2J\x1b[H", "a|b", "a`b", "\ud800",
    "/dev/null", "/proc/self/environ", "file:///etc/passwd", "x" * 300, "./x", "a//b", "//x", "con", "__x", "PIPE:touch PWNED",
)  # fmt: skip


def hostile(*more: str) -> SearchStrategy[str]:
    """Texts of :data:`WHOLE`, of :data:`PARTS` and ``more`` in any order, and any text at all."""
    parts = st.lists(st.sampled_from((*PARTS, *more)), min_size=1, max_size=6).map("".join)
    return st.one_of(st.sampled_from((*WHOLE, *more)), parts, st.text(max_size=12))

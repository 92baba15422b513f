"""Errors a user can act on."""


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and what to do, in one sentence (several: :func:`refuse`).

    The command line prints the text alone (no traceback) and exits with 2; library callers get an exception.
    """

    def __str__(self) -> str:
        return "\n       ".join(map(str, self.args))


def refuse(problems: list[str]) -> None:
    """Stop with all of them, a line each.

    Raises:
        UserError: when there are any; its ``args`` are the sentences.
    """
    if problems:
        raise UserError(*problems)

"""Errors a user can act on."""


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and what to do, in one sentence.

    The command line prints the text alone (no traceback) and exits with 2; library callers get an exception.
    """


def refuse(problems: list[str]) -> None:
    """Stop with all of them, a line each.

    Raises:
        UserError: when there are any.
    """
    if problems:
        raise UserError("\n       ".join(problems))

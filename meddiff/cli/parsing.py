"""Argument parsers whose errors are one sentence."""

import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from meddiff.cli.arguments import read_yaml, split_configs
from meddiff.cli.last_door import raised_here, sentence
from meddiff.common.bounds import out_of_bounds
from meddiff.common.errors import refuse
from meddiff.common.outside import terminal
from meddiff.common.places import at_home, locate

# The text under each field of an options class is its help.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def one_sentence(parser: ArgumentParser, message: str, error: Exception | None) -> NoReturn:
    """Print ``message`` on one line of stderr, with where to look, and exit with 2.

    Raises:
        ArgumentError: in a parser within a parser (of a class's arguments), whose caller knows the name of the option.
    """
    if not parser.exit_on_error:
        raise ArgumentError(None, str(message)) from error
    owner = getattr(error, "subcommand_parser", None) or parser
    prog = owner.prog.replace(" [options]", "")
    print(f"error: {terminal(brief(str(message)))} (`{prog} --help` lists what is accepted)", file=sys.stderr)
    parser.exit(2)
    raise AssertionError("exit() returned")


@contextmanager
def values_read(parser: ArgumentParser, args: Sequence[str]) -> Iterator[None]:
    """A value over which jsonargparse stumbles in the block, instead of refusing it, is told like one that it refuses."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if raised_here(error):
            raise
        flags = dict.fromkeys(one.partition("=")[0] for one in args if one.startswith("-"))
        one_sentence(parser, f"a value cannot be read ({sentence(error)}): look at {', '.join(flags)}", error)


def brief(message: str) -> str:
    """jsonargparse's complaint on one line: which option, and what is wrong with the type that was meant, not with null.

    Example:
        >>> brief("Parser key \\"model\\": Problem with given class_path 'a.B': Parser key \\"rate\\": Too much")
        'model.rate: Too much'
    """
    text = " ".join(message.split())
    text = re.sub(r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", "", text)
    keys, owner = "", ""
    while found := re.search(
        r"(Parser key \"(?P<key>[^\"]+)\"|Problem with given class_path '(?P<owner>[^']+)'): ", text
    ):
        key, owner = found["key"], found["owner"] or ""
        keys = f"{keys}.{key}" if keys and key else keys or key
        # what else a list of types could have been is no news once a class was named
        text = text[found.end() :].split(" - ")[0] if owner else text[found.end() :]
    return ": ".join(part for part in (keys, owner, in_plain_words(text)) if part)


#: Python's names of kinds of values, for those who write YAML.
PLAIN = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
_EXPECTED = re.compile(
    r"Expected an? (?:<class '(?P<kind>\w+)'>|typing\.Literal\[(?P<words>[^]]*)\])"
    r"(?:\. Got value: (?P<got>.*?))??(?: Given value type: <class '\w+'> Given value: (?P<given>.*))?"
)


def in_plain_words(text: str) -> str:
    """What jsonargparse says of a value of another kind, without Python's names; any other text as it is.

    Example:
        >>> in_plain_words("Expected a <class 'int'> - Expected a <class 'float'>. Got value: x")
        'expected a whole number or a number, not x'
        >>> in_plain_words("Expected a typing.Literal['ddim', 'pndm']. Got value: x")
        'expected ddim or pndm, not x'
    """
    found = [_EXPECTED.fullmatch(part) for part in text.split(" - ")]
    kinds = [one["kind"] for one in found if one is not None]
    if None in found or any(kind is not None and kind not in PLAIN for kind in kinds):
        return text
    whole = [one for one in found if one is not None]
    value = next((one[name] for name in ("given", "got") for one in whole if one[name] is not None), None)
    allowed: list[str] = []
    for one in whole:
        allowed += one["words"].replace("'", "").split(", ") if one["kind"] is None else [PLAIN[one["kind"]]]
    allowed = [word for word in dict.fromkeys(allowed) if word != "null" or len(allowed) == 1]
    words = " or ".join(filter(None, (", ".join(allowed[:-1]), allowed[-1])))
    return f"expected {words}" + ("" if value is None else f", not {value}")


class SentenceParser(ArgumentParser):
    """jsonargparse's parser for the suite's own verbs, which finds the suite's own configs from anywhere.

    An option that is abbreviated is none: what it stands for would change with the next option that begins alike.
    """

    def __init__(self, *how: str | None, **more: object) -> None:
        super().__init__(*how, **{**more, "allow_abbrev": False})  # type: ignore[arg-type]

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None, **how: bool
    ) -> Namespace:
        """As jsonargparse's, but ``-c configs/...`` is looked up in the suite, flags win over files, ``~`` is home."""
        if args is not None and any("--config" in action.option_strings for action in self._actions):
            files, flags = split_configs(list(args))
            for file in files:
                read_yaml(file)  # its complaints are one sentence, and it reads nothing twice
            args = [part for file in files for part in ("--config", str(locate(file)))] + flags
        with values_read(self, sys.argv[1:] if args is None else args):
            parsed: Namespace = super().parse_args(args, namespace, **how)
        refuse([f"--{problem}" for problem in out_of_bounds(parsed.as_dict())])
        return home_spelled_out(parsed)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        one_sentence(self, message, ex)


def home_spelled_out(parsed: Namespace) -> Namespace:
    """Every text of a parsed configuration that begins with ``~``, as a path; changed in place."""
    for key, value in list(vars(parsed).items()):
        if isinstance(value, Namespace):
            home_spelled_out(value)
        elif isinstance(value, list):
            setattr(
                parsed, key, [home_spelled_out(one) if isinstance(one, Namespace) else at_home(one) for one in value]
            )
        else:
            setattr(parsed, key, at_home(value))
    return parsed

"""``config.yaml`` of a run: the resolved configuration. Source: own."""

import os

import yaml

from meddiff.common.bounded import no_yaml, parse_yaml
from meddiff.common.errors import UserError
from meddiff.common.text_files import read_text


def parse_config(text: str) -> dict[str, object]:
    """The configuration; empty where the text is none.

    Raises:
        yaml.YAMLError: not YAML, or deeper or larger than any configuration.

    Example:
        >>> parse_config("name: trial"), parse_config("- 1")
        ({'name': 'trial'}, {})
    """
    try:
        config, _ = parse_yaml(text)
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from None
    return config if isinstance(config, dict) else {}


def read_config(path: str | os.PathLike[str]) -> dict[str, object]:
    """The configuration in a file.

    Raises:
        UserError: it cannot be read, or is no YAML.
    """
    try:
        return parse_config(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path} {no_yaml(error)}: put the run's own file back.") from None

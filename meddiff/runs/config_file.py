"""``config.yaml`` of a run: the resolved configuration. Source: own."""

import yaml


def parse_config(text: str) -> dict[str, object]:
    """The configuration; empty where the text is none.

    Raises:
        yaml.YAMLError: not YAML.

    Example:
        >>> parse_config("name: trial"), parse_config("- 1")
        ({'name': 'trial'}, {})
    """
    config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return config if isinstance(config, dict) else {}

"""Help of the Lightning verbs, and what a misspelt option was meant to be, before torch is read. Source: own."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from meddiff.cli.arguments import read_yaml, split_configs
from meddiff.cli.known_options import COMMON, Option, is_option, known, nearest, options_of, sections
from meddiff.cli.quick_check import merged
from meddiff.common.errors import UserError
from meddiff.common.places import locate

WIDTH, INDENT = 118, 6
#: Sections whose class a config names.
CHOSEN = ("model", "data")
#: Keys of a section that are no options of its class.
FORM = ("class_path", "init_args", "dict_kwargs", "help")


def configs_text() -> str:
    """The configs that ship, each with what it says of itself first."""
    rows, files = [], sorted(locate("configs").glob("*.yaml"))
    width = max(len(f"configs/{file.name}  ") for file in files)
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        said = " ".join(line.lstrip("# ") for line in lines[:3] if line.startswith("#"))
        rows.append(
            f"  {f'configs/{file.name}':<{width}}{textwrap.shorten(said, WIDTH - width - 2, placeholder=' ...')}"
        )
    return "\n".join(rows)


def asks_for_help(arguments: Sequence[str]) -> bool:
    """``-h``, ``--help``, ``--model.help``, ``--data.help``, ``--grounding.help``: all that the table can answer.

    Help about another class (``--model.help my.Module``, ``--trainer.strategy.help``) is jsonargparse's.
    """
    asked = [one for one in arguments if one in ("-h", "--help") or (one.startswith("--") and one.endswith(".help"))]
    return bool(asked) and all(one in ("-h", "--help") or _section_of(one) in sections()[:-1] for one in asked)


def _section_of(flag: str) -> str:
    return flag.removeprefix("--").removesuffix(".help")


def help_text(verb: str, arguments: Sequence[str]) -> str | None:
    """The help that ``arguments`` (expanded) ask for; None where a class in them is not one of the suite's."""
    asked_of = [one for one in arguments if one not in ("-h", "--help") and not one.endswith(".help")]
    classes, here = classes_of(arguments), merged(asked_of) or {}
    wanted = [_section_of(one) for one in arguments if one.startswith("--") and one.endswith(".help")]
    if any(options_of(name, classes.get(name)) is None for name in wanted if name not in CHOSEN or name in classes):
        return None
    files, _ = split_configs(list(arguments))
    parts = []
    if not wanted:
        parts.append(
            f"usage: lightning {verb} -c FILE [--OPTION VALUE ...]\n\nThe suite's own configs:\n\n{configs_text()}"
        )
        parts.append(_section("Options", [Option(name, *told) for name, told in COMMON.items()], ""))
    for name in CHOSEN:
        if wanted and name not in wanted:
            continue
        chosen = [classes[name]] if name in classes else sorted(_all_of(name))
        for class_path in chosen:
            options = options_of(name, class_path)
            if options is None:
                parts.append(
                    f"{name}: {class_path} is another package's: --{name}.help {class_path} lists its options."
                )
            elif name in classes or wanted:
                head, said = f"--{name}.*: {class_path}", _text(name, class_path)
                parts.append(_section(head, options, name, said, here.get(name) if name in classes else None))
        if name not in classes and not wanted:
            parts.append(f"--{name}.*: those of the class in a config: -c FILE --help, or --{name}.help of all:\n")
            parts[-1] += "\n".join(f"  {one:<44}{_text(name, one)[: WIDTH - 46]}" for one in chosen)
    for name, described in known()["callbacks"].items():
        if not wanted or name in wanted:
            options = [Option(*one) for one in described["options"]]
            head = f"--{name}.*: {described['text']} --{name} null: not in this run."
            parts.append(_section(head, options, name, here=here.get(name)))
    if not wanted:
        trainer = [Option(*one) for one in known()["trainer"]]
        head = "--trainer.*: Lightning's Trainer"
        parts.append(_section(head, trainer, "trainer", here=here.get("trainer"), first_only=True))
        if files:
            parts.append(f"What {', '.join(files)} sets: lightning {verb} -c {files[-1]} --print_config")
    return "\n\n".join(parts)


def _text(section: str, class_path: str) -> str:
    table = known()
    return (table["models"] if section == "model" else table["data"])[class_path]["text"]


def _all_of(section: str) -> list[str]:
    return list(known()["models" if section == "model" else "data"])


def _section(
    head: str, options: Sequence[Option], prefix: str, text: str = "", here: object = None, first_only: bool = False
) -> str:
    """A heading and a line or two an option.

    Args:
        here: what the files and flags say of this section.
        first_only: of each text the first sentence.
    """
    lines = [head, *textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  "), ""]
    for option in options:
        said = option.text.split(". ")[0].rstrip(".") + "." if first_only and option.text else option.text
        takes = (
            [textwrap.shorten(option.takes.removeprefix("type: "), WIDTH, placeholder=" ...")] if option.takes else []
        )
        takes += [f"here: {value}"] if (value := _value(here, option.name)) is not None else []
        name = f"{prefix}.{option.name}" if prefix else option.name
        lines.append(f"  --{name}" + (f"  ({'; '.join(takes)})" if takes else ""))
        lines += textwrap.wrap(said, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT)
    return "\n".join(lines)


def _value(section: object, name: str) -> str | None:
    """What a merged section says of an option, in one short line; None where it says nothing."""
    for part in name.split("."):
        if not isinstance(section, Mapping) or part not in section:
            return None
        section = section[part]
    return textwrap.shorten(str(section), WIDTH // 2, placeholder=" ...") if section is not None else "null"


# ---- what a config and flags name ----------------------------------------------------------------------------------------


def classes_of(arguments: Sequence[str]) -> dict[str, str]:
    """Section -> the class that files and flags choose for it; the last one counts."""
    files, flags = split_configs(list(arguments))
    found: dict[str, str] = {}
    for file in files:
        found |= _chosen_in(read_yaml(file))
    for flag, value in _pairs(flags):
        for name in CHOSEN:
            if flag in (f"--{name}", f"--{name}.class_path") and value and value[:1] not in "{[":
                found[name] = _in_full(name, value)
    return found


def _chosen_in(config: Mapping[str, object]) -> dict[str, str]:
    """Section -> the class that a file chooses for it."""
    named = {name: section.get("class_path") for name in CHOSEN if isinstance(section := config.get(name), Mapping)}
    return {name: _in_full(name, one) for name, one in named.items() if isinstance(one, str)}


def _in_full(section: str, class_path: str) -> str:
    """With its room, which LightningCLI does not ask for."""
    return next((full for full in _all_of(section) if full.endswith(f".{class_path}")), class_path)


def _pairs(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, value) of arguments; a value that stands by itself belongs to the flag before it."""
    for place, argument in enumerate(flags):
        if argument.startswith("--"):
            flag, equals, value = argument.partition("=")
            after = flags[place + 1] if place + 1 < len(flags) and not flags[place + 1].startswith("--") else ""
            yield flag, value if equals else after


def misspelt(arguments: Sequence[str]) -> list[str]:
    """One sentence for each flag and each key of a file that is no option, with what may have been meant.

    Speaks only of what is certainly none: a section of another package's class is left to jsonargparse.
    """
    files, flags = split_configs(list(arguments))
    classes, found = classes_of(arguments), []
    for flag, _ in _pairs(flags):
        name = flag.removeprefix("--").removesuffix("+")
        if (sentence := _unknown(name, classes, "--")) is not None:
            found.append(sentence)
    then: dict[str, str] = {}
    for file in files:
        config = read_yaml(file)
        then |= _chosen_in(config)
        for name in _keys(config):
            section = name.partition(".")[0]
            if section in CHOSEN and then.get(section) != classes.get(section):
                continue  # arguments of a class that is replaced later are dropped with it
            if (sentence := _unknown(name, classes, "")) is not None:
                found.append(f"{file}: {sentence}")
    return found


def _keys(config: Mapping[str, object]) -> Iterator[str]:
    """The names in a config as flags have them, at every depth."""
    for section, content in config.items():
        if isinstance(content, Mapping) and section in sections():
            inner = content.get("init_args", {}) if "class_path" in content or "init_args" in content else content
            yield from _below(section, inner)
        else:
            yield str(section)


def _below(name: str, content: object) -> Iterator[str]:
    for key, value in content.items() if isinstance(content, Mapping) else ():
        yield f"{name}.{key}"
        yield from _below(f"{name}.{key}", value)


def _unknown(name: str, classes: Mapping[str, str], dashes: str) -> str | None:
    """The sentence about a name that is no option; None where it is one, or may be one."""
    path = [part for part in name.split(".") if part != "init_args"]
    if path[0] in COMMON or not name:
        return None
    if path[0] not in sections():
        every = [*COMMON, *sections(), *_full_names(classes)]
        return _sentence(f"{dashes}{name}", [f"{dashes}{one}" for one in nearest(name, every)], "")
    options = options_of(path[0], classes.get(path[0]))
    if options is None or len(path) == 1 or path[1] in FORM or path[-1] == "help" or is_option(path[1:], options):
        return None
    owner = classes.get(path[0], path[0]) if path[0] in CHOSEN else path[0]
    meant = [f"{dashes}{path[0]}.{one}" for one in nearest(".".join(path[1:]), [option.name for option in options])]
    return _sentence(f"{dashes}{name}", meant or _elsewhere(path, classes, dashes), f" of {owner}")


def _full_names(classes: Mapping[str, str]) -> Iterator[str]:
    for section in sections():
        for option in options_of(section, classes.get(section)) or ():
            yield f"{section}.{option.name}"


def _elsewhere(path: Sequence[str], classes: Mapping[str, str], dashes: str) -> list[str]:
    """The same name in another section."""
    return [f"{dashes}{one}" for one in _full_names(classes) if one.rpartition(".")[2] == path[-1]][:3]


def _sentence(name: str, meant: Sequence[str], owner: str) -> str:
    told = f": did you mean {' or '.join(meant)}?" if meant else "; -c FILE --help lists what there is."
    return f"{name} is no option{owner}{told}"


def nothing_to_train(verb: str) -> UserError:
    """What ``lightning fit`` alone is answered."""
    return UserError(
        f"Nothing says what to {verb if verb != 'fit' else 'train'}: give a config, lightning {verb} -c FILE. The suite's own:",
        *(line.strip() for line in configs_text().splitlines()),
    )

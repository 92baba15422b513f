"""Objects of the classes that a run's configuration names. Nothing here imports a Lightning room. Source: own."""

from collections.abc import Mapping, Sequence
from importlib import import_module

from meddiff.common.errors import UserError


def import_class(path: str) -> type:
    """The class a ``class_path`` names.

    Raises:
        UserError: there is none.
    """
    module, _, name = path.rpartition(".")
    try:
        found: type = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"No class {path} ({error}): install the package that the run was made with.") from None
    return found


#: What the class of a run's module and of its data must have. Their names come from a file (config.yaml, a checkpoint):
#: without this, ``subprocess.Popen`` would be a class like any other, and its arguments a command.
MODULE = ("configure_model", "on_load_checkpoint", "load_state_dict")
DATA = ("prepare_data", "train_dataloader")


def build(path: str, arguments: Mapping[str, object], has: Sequence[str]) -> object:
    """An object of the class at ``path``; arguments are read as a config file's are (dicts become dataclasses).

    Args:
        has: :data:`MODULE` or :data:`DATA`, what the class must have before it is called.

    Raises:
        UserError: no such class, one of another kind, or arguments it does not take.
    """
    from jsonargparse import ArgumentParser

    found = import_class(path)
    lacks = [name for name in has if not isinstance(found, type) or not callable(getattr(found, name, None))]
    if lacks:
        raise UserError(
            f"{path} is not the class of a module or of data of this suite (no {lacks[0]}): it is not called."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(found, "it")
    try:
        return parser.instantiate_classes(parser.parse_object({"it": dict(arguments)}))["it"]
    except UserError:
        raise
    except Exception as error:  # jsonargparse raises whatever its parts do
        raise UserError(
            f"{path} does not take the arguments it was made with: {' '.join(str(error).split())}"
        ) from error

"""Command-line options made from the fields of configuration dataclasses.

Each option's name, type, default and help are the field's own, so that the command line, the Python
interface and the documentation cannot differ. Parsing commands is `__main__`'s business.
"""

from __future__ import annotations

import argparse
import types
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")

# Options whose established name differs from their field's.
_OPTION_NAMES = {"default_voice": "--voice"}


def add_config_arguments(parser: argparse.ArgumentParser, config_type: type) -> None:
    """Add one option per field of a configuration dataclass."""
    group = parser.add_argument_group(config_type.__name__)
    hints = get_type_hints(config_type)
    for field in fields(config_type):
        option = _OPTION_NAMES.get(field.name, "--" + field.name.replace("_", "-"))
        group.add_argument(option, dest=field.name, **_argument(field, hints[field.name]))


def config_from_arguments(args: argparse.Namespace, config_type: type[C]) -> C:
    """The configuration that the options give.

    Raises:
        ValueError: a value is out of range.
    """
    names = [field.name for field in fields(config_type)]  # type: ignore[arg-type]
    return config_type(**{name: getattr(args, name) for name in names})


def _argument(field: Field[Any], hint: Any) -> dict[str, Any]:
    """Keyword arguments of `add_argument` for one field."""
    assert field.default is not MISSING, f"{field.name} needs a default"
    text = field.metadata["help"].replace("%", "%%")
    if field.default is not None:
        text += " (default: %(default)s)"
    options: dict[str, Any] = {"default": field.default, "help": text}
    hint = _without_none(hint)
    if get_origin(hint) is Literal:
        return {**options, "choices": get_args(hint)}
    if hint is bool:
        return {**options, "action": argparse.BooleanOptionalAction}
    return {**options, "type": hint, "metavar": hint.__name__.upper()}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint

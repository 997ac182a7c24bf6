"""A check of real objects against the Protocols that say what we use of them: names, plain types, parameters."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any

PLAIN = (bool, int, float, str)


def protocols_of(module: ModuleType) -> dict[str, type]:
    """Return the Protocols that a module defines, by name."""
    return {
        name: each
        for name, each in vars(module).items()
        if isinstance(each, type) and getattr(each, "_is_protocol", False) and each.__module__ == module.__name__
    }


class Differences:
    """What objects lack of Protocols, each a sentence.

    Takes the names that annotations may have beside those of a Protocol's own module, and attributes that no object has
    as yet, as ``Protocol.name``.

    Attributes:
        found: the sentences.
        checked: the names of the Protocols that an object was held against.
    """

    def __init__(self, known: Mapping[str, object] | None = None, absent: Collection[str] = ()) -> None:
        self.found: list[str] = []
        self.checked: set[str] = set()
        self._known = dict(known or {})
        self._absent = absent
        self._seen: set[tuple[type, int]] = set()

    def check(self, protocol: type, real: object) -> None:
        """Hold an object against a Protocol, and what its attributes are against the Protocols that they are of."""
        if (protocol, id(real)) in self._seen:
            return
        self._seen.add((protocol, id(real)))
        for base in protocol.__mro__:
            if getattr(base, "_is_protocol", False):
                self.checked.add(base.__name__)
        for name, hint in self._attributes(protocol):
            where = f"{protocol.__name__}.{name}"
            if where in self._absent:
                if hasattr(real, name):
                    self.found.append(f"{where}: a {type(real).__name__} has one")
            elif not hasattr(real, name):
                self.found.append(f"{where}: a {type(real).__name__} has none")
            else:
                self._check_value(where, hint, getattr(real, name))
        for name, method in _methods(protocol):
            # What calls a class is its constructor.
            own = real if name == "__call__" else getattr(real, name, None)
            if not callable(own):
                self.found.append(f"{protocol.__name__}.{name}(): a {type(real).__name__} has none")
            elif reason := _why_not_called(method, own):
                self.found.append(f"{protocol.__name__}.{name}(): {reason}")

    def _attributes(self, protocol: type) -> Iterator[tuple[str, Any]]:
        yield from typing.get_type_hints(protocol, localns=self._known).items()
        for base in protocol.__mro__:
            for name, value in vars(base).items():
                if isinstance(value, property) and value.fget is not None and getattr(base, "_is_protocol", False):
                    yield name, typing.get_type_hints(value.fget, localns=self._known)["return"]

    def _check_value(self, where: str, hint: Any, value: object) -> None:
        arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if len(arms) > 1 and value is None and types.NoneType in arms:
            return
        plain = [arm for arm in arms if arm in PLAIN]
        if plain and not any(_is_a(value, arm) for arm in plain):
            self.found.append(f"{where}: {value!r} is no {' or '.join(arm.__name__ for arm in plain)}")
        for arm in arms:
            if getattr(arm, "_is_protocol", False):
                self.check(arm, value)
            elif typing.get_origin(arm) is list and not isinstance(value, list):
                self.found.append(f"{where}: {value!r} is no list")


def _is_a(value: object, kind: type) -> bool:
    """Tell whether a value may stand where a type does: an int where a float does, and no bool where an int does."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _methods(protocol: type) -> Iterator[tuple[str, Callable[..., object]]]:
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False):
            for name, value in vars(base).items():
                if inspect.isfunction(value) and (not name.startswith("__") or name == "__call__"):
                    yield name, value


def _why_not_called(method: Callable[..., object], own: Callable[..., object]) -> str | None:
    """Return why an object's own method cannot be called as a Protocol's method says, None where it can."""
    try:
        signature = inspect.signature(own)
    except ValueError:  # one in C that does not say
        return None
    parameters = [each for each in inspect.signature(method).parameters.values() if each.name != "self"]
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    named = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    try:
        signature.bind(*positional, **{each.name: each for each in named})
        # What is optional may be left out.
        signature.bind(
            *(each for each in positional if each.default is each.empty),
            **{each.name: each for each in named if each.default is each.empty},
        )
    except TypeError as error:
        return f"{error}: it takes {signature}"
    theirs = list(signature.parameters)
    for place, each in enumerate(positional):
        if each.kind is each.POSITIONAL_OR_KEYWORD and theirs[place : place + 1] != [each.name]:
            return f"its parameter {place + 1} is not {each.name}: it takes {signature}"
    if any(each.kind is each.VAR_KEYWORD for each in parameters) and not any(
        each.kind is each.VAR_KEYWORD for each in signature.parameters.values()
    ):
        return f"it takes no keywords of all names: {signature}"
    return None

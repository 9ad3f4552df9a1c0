"""What `dataclasses.dataclass` makes, for a fifth of what it takes to make it.

`dataclasses` writes and compiles up to six methods of each class when its module is imported. Of the 190 ms that a
worker computed before its first answer a fifth went there: in every tenant, at every start. Only `__init__` gains by
being written out for its class; the others are here once, for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Final, NoReturn

_UNSET: Final = object()


def _dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[Any], Any]:
    """A decorator; the options and the class that comes out are those of `dataclasses.dataclass`.

    `fields`, `replace` and `copy` know the class. What no class of this project has is left out: a parent that is a
    dataclass, methods of one's own in place of the made ones, `InitVar`, `kw_only` and `order`.
    """

    def make(cls: Any) -> Any:
        cls.__doc__ = cls.__doc__ or cls.__name__  # without one, `dataclasses` takes the signature apart to write one
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
        fields = dataclasses.fields(made)
        made.__init__ = _init(made, fields, frozen=frozen)
        made.__repr__, made.__shown__ = _repr, tuple(f.name for f in fields if f.repr)
        if eq:
            made.__eq__, made.__compared__ = _eq, attrgetter("__class__", *(f.name for f in fields if f.compare))
            made.__hash__ = _hash if frozen else None
        if frozen:
            made.__setattr__, made.__delattr__, made.__setstate__ = _refuse_set, _refuse_delete, _restore
        return made

    return make


# A type checker is told that it is the one which it knows.
if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass


def _init(cls: Any, fields: Iterable[dataclasses.Field[Any]], *, frozen: bool) -> Any:
    names: dict[str, Any] = {"_set": object.__setattr__, "_UNSET": _UNSET}
    parameters, lines = ["self"], []
    for field in fields:
        value = field.name
        if field.default_factory is not dataclasses.MISSING:
            names[f"_make_{field.name}"] = field.default_factory
            value = f"_make_{field.name}() if {field.name} is _UNSET else {field.name}"
            parameters.append(f"{field.name}=_UNSET")
        elif field.default is not dataclasses.MISSING:
            names[f"_default_{field.name}"] = field.default
            parameters.append(f"{field.name}=_default_{field.name}")
        elif field.init:
            parameters.append(field.name)
        else:
            continue  # `__post_init__` sets it
        lines.append(f"_set(self, {field.name!r}, {value})" if frozen else f"self.{field.name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    text = "\n    ".join((f"def __init__({', '.join(parameters)}):", *(lines or ["pass"])))
    exec(text, names)  # noqa: S102  the names are those of a class in a program's own text, as in `dataclasses`
    made = names["__init__"]
    made.__module__, made.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    made.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return made


@recursive_repr()
def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__shown__)
    return f"{type(self).__qualname__}({values})"


def _eq(self: Any, other: Any) -> object:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self.__compared__(self) == self.__compared__(other)


def _hash(self: Any) -> int:
    return hash(self.__compared__(self))


def _refuse_set(_: Any, name: str, __: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_: Any, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _restore(self: Any, state: tuple[object, dict[str, Any]] | dict[str, Any]) -> None:
    """For `copy` and `pickle`: with slots the state is a pair."""
    for name, value in (state[1] if isinstance(state, tuple) else state).items():
        object.__setattr__(self, name, value)

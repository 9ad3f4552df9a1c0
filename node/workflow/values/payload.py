"""Values to JSON text and back, by type hints.

The text is canonical (sorted keys, no spaces), so equal values have equal text and equal hashes on every version of
Python.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import json
import pathlib
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, Union

from node.workflow.errors import InvalidDefinition, InvalidInput, NotStorable

Decoder: TypeAlias = Callable[[Any, str], Any]  # (JSON value, path for the error) → typed value


def encode(value: Any, what: str = "value") -> str:
    """`value` as canonical JSON text. Dataclasses, enums, dates, times, bytes, UUIDs, paths, decimals and pydantic
    models are understood.

    Raises NotStorable, naming `what`, for anything else, for NaN and for text that is not valid Unicode.
    """
    try:
        text = _encode(value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotStorable(f"{what} has no JSON form: {error}") from None
    return text


def digest(text: str) -> str:
    """The content hash of `text`, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def short_digest(text: str) -> str:
    """The first 16 digits of the content hash: enough to tell a run's own arguments apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, uuid.UUID | pathlib.PurePath | decimal.Decimal):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    dump = getattr(value, "model_dump", None)  # pydantic's, which is no dependency
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"{type(value).__qualname__} can't be written as JSON")


def encoder(*, sort_keys: bool, default: Callable[[Any], Any] | None = None) -> Callable[[Any], str]:
    """A function from values to JSON text without spaces. It raises TypeError, ValueError or RecursionError.

    `JSONEncoder.encode` makes the part of it that is C anew for every value, which costs more than a small value does.
    """
    plain = json.JSONEncoder(
        sort_keys=sort_keys,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
        check_circular=False,  # a circle is a RecursionError
        default=default,
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    made = make(None, plain.default, json.encoder.encode_basestring, None, ":", ",", sort_keys, False, False)
    return lambda value: "".join(made(value, 0))


_encode: Final = encoder(sort_keys=True, default=_plain)
_scan: Final = json.JSONDecoder().raw_decode


def parse(text: str) -> Any:
    """The value of JSON text that this library has written: without spaces around it, and nothing behind it."""
    return _scan(text)[0]


def decoder(hint: Any, owner: str) -> Decoder:
    """How values declared as `hint` are read from JSON.

    Raises InvalidDefinition, naming `owner`, when there is no way.
    """
    try:
        return _decoder(hint)
    except _Unreadable as error:
        raise InvalidDefinition(
            f"{owner}: {error} can't be read back from JSON; use a dataclass or plain types"
        ) from None


class _Unreadable(Exception):
    pass


def _bad(path: str, expected: str, value: Any) -> InvalidInput:
    found = "null" if value is None else type(value).__name__
    return InvalidInput(path, f"expected {expected}, got {found}")


@functools.lru_cache(maxsize=1024)
def _decoder(hint: Any) -> Decoder:
    if hint is Any or hint is object or isinstance(hint, typing.TypeVar):
        return lambda value, path: value
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _union(typing.get_args(hint))
    if origin is Literal:
        return _literal(typing.get_args(hint))
    if origin is typing.Annotated:
        return _decoder(typing.get_args(hint)[0])
    container = _CONTAINERS.get(origin or hint)
    if container is not None:
        return container(typing.get_args(hint))
    if isinstance(hint, typing.NewType):
        return _decoder(hint.__supertype__)
    scalar = _SCALARS.get(hint)
    if scalar is not None:
        return scalar
    if isinstance(hint, type):
        return _class(hint)
    raise _Unreadable(repr(hint))


def _class(hint: type) -> Decoder:
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint)
    if typing.is_typeddict(hint):
        return _mapping(())
    if hasattr(hint, "model_validate"):
        return _parsed("an object", dict, hint.model_validate, hint.__name__)
    if issubclass(hint, enum.Enum):
        return _parsed("one of " + ", ".join(repr(m.value) for m in hint), object, hint, hint.__name__)
    raise _Unreadable(hint.__qualname__)


def _exact(expected: str, *kinds: type) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
            return value
        raise _bad(path, expected, value)

    return decode


def _float(value: Any, path: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise InvalidInput(path, "larger than any number with a decimal point") from None
    raise _bad(path, "a number", value)


def _timedelta(value: Any, path: str) -> datetime.timedelta:
    seconds = _float(value, path)
    try:
        return datetime.timedelta(seconds=seconds)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(path, f"not a valid number of seconds: {error}") from None


def _parsed(expected: str, kind: type, parse: Callable[[Any], Any], name: str) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if not isinstance(value, kind):
            raise _bad(path, expected, value)
        try:
            return parse(value)
        except (ValueError, ArithmeticError) as error:
            raise InvalidInput(path, f"not a valid {name}: {error}") from None

    return decode


def _union(hints: tuple[Any, ...]) -> Decoder:
    choices = [_decoder(h) for h in sorted(hints, key=lambda h: h is not type(None))]

    def decode(value: Any, path: str) -> Any:
        problems = []
        for choice in choices:
            try:
                return choice(value, path)
            except InvalidInput as error:
                problems.append(error)
        raise problems[-1]

    return decode


def _literal(values: tuple[Any, ...]) -> Decoder:
    def decode(value: Any, path: str) -> Any:
        if value in values:
            return value
        raise InvalidInput(path, "expected one of " + ", ".join(map(repr, values)))

    return decode


def _sequence(build: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Decoder]:
    def of(hints: tuple[Any, ...]) -> Decoder:
        item = _decoder(hints[0] if hints else Any)

        def decode(value: Any, path: str) -> Any:
            if not isinstance(value, list):
                raise _bad(path, "a list", value)
            return build(item(v, f"{path}[{i}]") for i, v in enumerate(value))

        return decode

    return of


def _set(build: Callable[[Any], Any]) -> Callable[[tuple[Any, ...]], Decoder]:
    def of(hints: tuple[Any, ...]) -> Decoder:
        listed = _sequence(list)(hints)

        def decode(value: Any, path: str) -> Any:
            items = listed(value, path)
            try:
                return build(items)
            except TypeError as error:  # a list or an object in it
                raise InvalidInput(path, f"can't be in a set: {error}") from None

        return decode

    return of


def _tuple(hints: tuple[Any, ...]) -> Decoder:
    if not hints or hints[-1] is Ellipsis:
        return _sequence(tuple)(hints[:1])
    items = [_decoder(h) for h in hints]

    def decode(value: Any, path: str) -> Any:
        if not isinstance(value, list) or len(value) != len(items):
            raise _bad(path, f"a list of {len(items)}", value)
        return tuple(item(v, f"{path}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True)))

    return decode


def _mapping(hints: tuple[Any, ...]) -> Decoder:
    key, item = (_decoder(h) for h in (hints or (Any, Any)))
    whole_keys = bool(hints) and hints[0] is int  # JSON has only text as keys

    def decode(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise _bad(path, "an object", value)
        return {key(_whole(k, path) if whole_keys else k, path): item(v, f"{path}.{k}") for k, v in value.items()}

    return decode


def _whole(key: str, path: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise InvalidInput(f"{path}.{key:.80}", "expected a whole number as its name") from None


def _dataclass(cls: type) -> Decoder:
    hints: dict[str, Any] | None = None
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    required = [
        f.name for f in fields.values() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]

    def decode(value: Any, path: str) -> Any:
        nonlocal hints
        if hints is None:  # resolved late, so that a class may name itself
            hints = {name: _decoder(hint) for name, hint in typing.get_type_hints(cls).items() if name in fields}
        if not isinstance(value, dict):
            raise _bad(path, f"an object ({cls.__name__})", value)
        for name in value:
            if name not in fields:
                raise InvalidInput(f"{path}.{name}", f"unknown field; {cls.__name__} has {', '.join(fields)}")
        for name in required:
            if name not in value:
                raise InvalidInput(f"{path}.{name}", "missing")
        values = {name: hints[name](v, f"{path}.{name}") for name, v in value.items()}
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:  # the author's own checks, in `__post_init__`
            raise InvalidInput(path, str(error)) from None

    return decode


_SCALARS: dict[Any, Decoder] = {
    None: _exact("null", type(None)),
    type(None): _exact("null", type(None)),
    bool: _exact("true or false", bool),
    int: _exact("a whole number", int),
    float: _float,
    str: _exact("text", str),
    datetime.datetime: _parsed("a date and time", str, datetime.datetime.fromisoformat, "date and time"),
    datetime.time: _parsed("a time of day", str, datetime.time.fromisoformat, "time of day"),
    datetime.timedelta: _timedelta,
    bytes: _parsed("bytes in base64", str, functools.partial(base64.b64decode, validate=True), "base64"),
    datetime.date: _parsed("a date", str, datetime.date.fromisoformat, "date"),
    uuid.UUID: _parsed("a UUID", str, uuid.UUID, "UUID"),
    decimal.Decimal: _parsed("a decimal number as text", str, decimal.Decimal, "decimal number"),
    pathlib.Path: _parsed("a path", str, pathlib.Path, "path"),
    pathlib.PurePath: _parsed("a path", str, pathlib.PurePath, "path"),
}

_CONTAINERS: dict[Any, Callable[[tuple[Any, ...]], Decoder]] = {
    list: _sequence(list),
    Sequence: _sequence(list),
    set: _set(set),
    frozenset: _set(frozenset),
    tuple: _tuple,
    dict: _mapping,
    Mapping: _mapping,
}

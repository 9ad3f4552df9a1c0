"""What an operation of the worker's API is: one value from which it is routed, validated and documented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from node.worker.http import Request, Response, Stream
from node.worker.pressure import Load
from node.worker.problem import Problem, invalid
from node.workflow.values.dataclass import dataclass

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter. parse: text to value, raising ValueError with a sentence that says what is expected."""

    name: str
    schema: Schema
    parse: Callable[[str], Any]
    description: str
    default: Any = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path.

    path: with `{name}` for a segment. answers: the schema of the body per status (None: text). body: the schema of a
    JSON body, or None where none is read; a body that is not required is None when it is missing.
    """

    name: str
    method: str
    path: str
    summary: str
    handle: Callable[[Request], Awaitable[Response | Stream]]
    answers: Mapping[int, Schema | None]
    query: tuple[Parameter, ...] = ()
    body: Schema | None = None
    body_required: bool = True
    problems: tuple[int, ...] = ()
    load: Load = "read"
    media_type: str = "application/json"  # of its answers
    segments: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.path.strip("/").split("/")))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(segment[1:-1] for segment in self.segments if segment.startswith("{"))

    def parse_query(self, query_string: bytes) -> dict[str, Any]:
        """The values of all parameters, defaults filled in. Raises Problem 422 naming the one that is wrong or
        unknown."""
        try:
            pairs = parse_qsl(
                query_string.decode("latin-1"),
                keep_blank_values=True,
                max_num_fields=32,
                encoding="utf-8",
                errors="strict",
            )
        except ValueError as error:
            raise invalid("query", f"it cannot be read: {error}") from error
        known = {parameter.name: parameter for parameter in self.query}
        values: dict[str, Any] = {}
        for name, text in pairs:
            if name not in known:
                expected = ", ".join(known) or "none"
                raise invalid(name, f"unknown query parameter; this operation knows: {expected}")
            if name in values:
                raise invalid(name, "given twice")
            try:
                values[name] = known[name].parse(text)
            except ValueError as error:
                raise invalid(name, str(error)) from error
        return {name: values.get(name, parameter.default) for name, parameter in known.items()}


class Routes:
    """Finds an operation by method and path."""

    def __init__(self, operations: tuple[Operation, ...]) -> None:
        self._by_length: dict[int, list[Operation]] = {}
        for operation in operations:
            self._by_length.setdefault(len(operation.segments), []).append(operation)
        self._roots = frozenset(operation.segments[0] for operation in operations)

    def owns(self, path: str) -> bool:
        """Whether a path belongs to the worker's API, so that a tenant's routes can't shadow it."""
        return path.split("/", 2)[1] in self._roots if path.startswith("/") else False

    def find(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
        """The operation and its path parameters. Raises Problem 404, 405 (with Allow), 422 for text that is not
        UTF-8."""
        segments = raw_path[1:].split("/")
        allowed: list[str] = []
        for operation in self._by_length.get(len(segments), []):
            parameters = _match(operation.segments, segments)
            if parameters is None:
                continue
            if method == operation.method or (method == "HEAD" and operation.method == "GET"):
                return operation, _decode(parameters)
            allowed.append(operation.method)
        if allowed:
            allow = ", ".join([*allowed, "HEAD"] if "GET" in allowed else allowed)
            raise Problem(
                405, "method-not-allowed", f"{method} is not possible here, only {allow}", headers=(("allow", allow),)
            )
        raise Problem(404, "no-such-path", f"there is nothing at {raw_path[:200]}; /openapi.json lists what there is")


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not segment:
                return None
            parameters[expected[1:-1]] = segment
        elif expected != segment:
            return None
    return parameters


def _decode(parameters: dict[str, str]) -> dict[str, str]:
    decoded: dict[str, str] = {}
    for name, segment in parameters.items():
        try:
            decoded[name] = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError as error:
            raise invalid(name, "it is not UTF-8") from error
    return decoded

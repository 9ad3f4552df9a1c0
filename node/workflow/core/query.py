"""Questions to a run that its own code answers, from what it knows, changing nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from node.workflow.core.definition import parameter_decoders
from node.workflow.errors import InvalidInput


def ask_handler(handler: Callable[..., Any], name: str, arguments: Sequence[Any]) -> Any:
    """The handler's answer to plain JSON arguments, read by its type hints. Raises InvalidInput, or what it raises."""
    decoders = parameter_decoders(handler, f"query {name}")
    try:
        inspect.signature(handler).bind(*arguments)
    except TypeError as error:
        raise InvalidInput("args", str(error)) from None
    values = [decode(value, f"args[{i}]") for i, (decode, value) in enumerate(zip(decoders, arguments, strict=False))]
    return handler(*values)

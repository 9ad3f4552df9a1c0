"""What runs can be found by: names and values that an author gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from node.workflow.errors import InvalidInput

MAX_ATTRIBUTES: Final = 32
LARGEST: Final = 2**53 - 1  # that every reader of JSON keeps as it is
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_LONGEST_VALUE: Final = 1_024


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a name or a value that can't be searched by."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidInput("attributes", f"at most {MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if not _ATTRIBUTE.fullmatch(name):
            raise InvalidInput(
                "attributes", f"{name!r:.80} is no name: letters, digits, '_', '.', '-', at most 64, no digit first"
            )
        problem = _problem(value)
        if problem is not None:
            raise InvalidInput(f"attributes.{name}", problem)


def _problem(value: Any) -> str | None:
    match value:
        case None | bool():
            return None
        case int() | float():
            return None if abs(value) <= LARGEST else f"a number from -{LARGEST} to {LARGEST}"
        case str():
            if len(value) > _LONGEST_VALUE:
                return f"at most {_LONGEST_VALUE} characters"
            return None if _is_text(value) else "not valid Unicode text"
        case _:
            return "text, a number, true or false"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value

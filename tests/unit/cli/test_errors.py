"""How a command that is not done ends."""

from __future__ import annotations

import pytest

from fleet.cli.errors import CONFLICT, FAILED, MISSING, UNAVAILABLE, UNKNOWN, USAGE, CliError


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (FAILED, "error", False),
        (USAGE, "invalid", False),
        (MISSING, "not_found", False),
        (UNKNOWN, "outcome_unknown", True),
        (CONFLICT, "conflict", False),
        (UNAVAILABLE, "unavailable", True),
    ],
)
def test_what_goes_wrong_before_the_api_is_asked_is_called_as_the_api_would(code, kind, retryable):
    problem = CliError("why", code).problem
    assert (problem["type"], problem["retryable"], problem["detail"]) == (f"urn:fleet:{kind}", retryable, "why")

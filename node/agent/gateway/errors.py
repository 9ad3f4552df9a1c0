"""What can go wrong between the agent and its gateway."""

from __future__ import annotations


class GatewayFailed(Exception):
    """The gateway could not be told. `retryable`: the same call may succeed later; the routes are kept either way."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable


class GatewayMisconfigured(GatewayFailed):
    """A setting of the gateway cannot work; the message names it. Repeating does not help."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)

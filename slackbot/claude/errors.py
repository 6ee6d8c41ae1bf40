"""The SDK's errors, and its transport's, as ours."""

import anthropic
import httpx2

from slackbot.errors import (
    ClaudeBusyError,
    ClaudeError,
    ClaudeInterruptedError,
    ClaudeMisconfiguredError,
    ClaudeRejectedError,
    ClaudeTooLongError,
    ClaudeUnreachableError,
)

# What can go wrong between a request and the end of its stream. ValueError: tool JSON that does
# not parse; AssertionError and AttributeError: an answer that is no event stream of Claude's.
STREAM_ERRORS = (
    anthropic.AnthropicError,
    httpx2.TransportError,
    httpx2.StreamError,
    ValueError,
    AssertionError,
    AttributeError,
    TypeError,
)
_BUSY = frozenset({"rate_limit_error", "overloaded_error"})
_MISCONFIGURED = frozenset(
    {"authentication_error", "permission_error", "billing_error", "not_found_error"}
)
_STREAM_STATUS = 200


def translate_error(error: Exception) -> ClaudeError:
    """`error`, one of STREAM_ERRORS, as what it means for a turn."""
    match error:
        case anthropic.APIStatusError():
            return _translate_status(error)
        case anthropic.APIConnectionError():
            return ClaudeUnreachableError("no connection or no answer in time")
        case httpx2.TransportError() | httpx2.StreamError():
            return ClaudeInterruptedError(f"the stream broke off ({type(error).__name__})")
        case ValueError():
            return ClaudeInterruptedError("tool input that is no JSON")
        case _:
            return ClaudeRejectedError(f"not an answer of Claude ({type(error).__name__})")


def _translate_status(error: anthropic.APIStatusError) -> ClaudeError:
    kind = error.type or ""
    request_id = error.request_id
    if error.status_code == _STREAM_STATUS:  # an error event inside a stream
        return ClaudeInterruptedError(f"{kind or 'error'} in mid-stream", request_id=request_id)
    reason = f"{error.status_code} {kind}".strip()
    if kind in _BUSY or error.status_code in {429, 529}:
        return ClaudeBusyError(reason, request_id=request_id)
    if kind in _MISCONFIGURED or error.status_code in {401, 402, 403, 404}:
        return ClaudeMisconfiguredError(reason, request_id=request_id)
    # Too long for the model is a 400 of the general kind; only its words tell.
    if error.status_code == 413 or "too long" in (error.api_message or ""):
        return ClaudeTooLongError(reason, request_id=request_id)
    if error.status_code >= 500 or error.status_code in {408, 409}:
        return ClaudeUnreachableError(reason, request_id=request_id)
    return ClaudeRejectedError(f"{reason}: {error.api_message}", request_id=request_id)

"""Slack's Web API: each method ShopMate uses, and one place where its errors become ours."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.errors import (
    SlackAuthError,
    SlackRateLimitedError,
    SlackRefusedError,
    SlackUnreachableError,
)

# Each method of the bot token with the scope it needs (None: every token has it); the manifest is
# held against it. `apps.connections.open` goes with the app token instead.
METHODS: Mapping[str, str | None] = {
    "assistant.threads.setStatus": "chat:write",
    "auth.test": None,
    "chat.delete": "chat:write",
    "chat.getPermalink": None,
    "chat.postMessage": "chat:write",
    "chat.update": "chat:write",
    "conversations.history": "im:history",
    "conversations.open": "im:write",
    "conversations.replies": "channels:history",
    "reactions.add": "reactions:write",
    "reactions.remove": "reactions:write",
    "users.info": "users:read",
}
CALL_TIMEOUT_S = 15
CONNECT_TIMEOUT_S = 5
DEFAULT_RETRY_AFTER_S = 5.0
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 30.0
MAX_TRIES = 30  # with the pauses between them: about a quarter of an hour
PAGE_SIZE = 200
MAX_PAGES = 5

_RATE_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
# Slack's own trouble: it may have been done or not, and may work the next time.
_PASSING = frozenset(
    {
        "fatal_error",
        "internal_error",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
        "update_failed",
    }
)
_NOT_AUTHORISED = frozenset({"invalid_auth", "not_authed", "token_expired", "token_revoked"})


T = TypeVar("T")


class SlackCalls:
    """Every call raises SlackRefusedError, SlackRateLimitedError or SlackUnreachableError."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def post(self, **message: Any) -> str:
        """Posts a message; its ts."""
        answer = await self._write("chat.postMessage", message)
        return str(answer["ts"])

    async def update(self, **message: Any) -> None:
        """Replaces what a message shows."""
        await self._write("chat.update", message)

    async def delete(self, channel: str, ts: str) -> None:
        """Deletes a message of ShopMate's."""
        await self._write("chat.delete", {"channel": channel, "ts": ts})

    async def set_status(self, channel: str, ts: str, status: str) -> None:
        """Shows what ShopMate is doing in the thread of `ts`; nothing with an empty status."""
        arguments = {"channel_id": channel, "thread_ts": ts, "status": status}
        await self._write("assistant.threads.setStatus", arguments)

    async def add_reaction(self, channel: str, ts: str, name: str) -> None:
        """Adds a reaction to a message."""
        await self._write("reactions.add", {"channel": channel, "timestamp": ts, "name": name})

    async def remove_reaction(self, channel: str, ts: str, name: str) -> None:
        """Takes ShopMate's reaction off a message."""
        await self._write("reactions.remove", {"channel": channel, "timestamp": ts, "name": name})

    async def open_dm(self, user: str) -> str:
        """The channel of the DM with `user`."""
        answer = await self._write("conversations.open", {"users": user})
        return str(answer["channel"]["id"])

    async def fetch_user(self, user: str) -> Mapping[str, Any]:
        """A user as users.info describes them."""
        answer = await self._read("users.info", {"user": user})
        found: Mapping[str, Any] = answer["user"]
        return found

    async def fetch_permalink(self, channel: str, ts: str) -> str:
        """A link to a message."""
        arguments = {"channel": channel, "message_ts": ts}
        answer = await self._read("chat.getPermalink", arguments)
        return str(answer["permalink"])

    async def fetch_messages(
        self, channel: str, thread_ts: str | None, *, oldest: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Messages of a thread, or of the channel's top level, with their metadata."""
        arguments: dict[str, Any] = {
            "channel": channel,
            "include_all_metadata": True,
            "limit": PAGE_SIZE,
        }
        if oldest:
            arguments |= {"oldest": oldest, "inclusive": True}
        method = "conversations.history"
        if thread_ts:
            method = "conversations.replies"
            arguments["ts"] = thread_ts
        messages: list[Mapping[str, Any]] = []
        for _ in range(MAX_PAGES):
            answer = await self._read(method, arguments)
            messages.extend(answer["messages"])
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                break
            arguments["cursor"] = cursor
        return messages

    async def check_token(self) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Who the bot token belongs to, and the scopes it was granted."""
        answer = await self._write("auth.test", {})
        scopes = str(answer.headers.get("x-oauth-scopes") or "")
        return answer, [scope.strip() for scope in scopes.split(",") if scope.strip()]

    async def open_connection(self, app_token: str) -> str:
        """A ticket for Socket Mode: the URL of one socket."""
        answer = await self._call("apps.connections.open", json={}, token=app_token)
        return str(answer["url"])

    async def _write(self, method: str, arguments: Mapping[str, Any]) -> Any:
        return await self._call(method, json=dict(arguments))

    async def _read(self, method: str, arguments: Mapping[str, Any]) -> Any:
        return await self._call(method, params=dict(arguments))

    async def _call(
        self, method: str, *, token: str | None = None, **arguments: dict[str, Any]
    ) -> Any:
        verb = "POST" if "json" in arguments else "GET"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return await self._client.api_call(method, http_verb=verb, headers=headers, **arguments)
        except SlackClientError as error:
            raise _translate(method, error) from error
        # What the SDK raises for answers that are no JSON object differs from case to case.
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SlackUnreachableError(method, type(error).__name__) from error
        except (AttributeError, TypeError, ValueError) as error:
            raise SlackUnreachableError(method, "an answer that cannot be read") from error


async def insist(
    call: Callable[[], Awaitable[T]],
    *,
    sleep: Callable[[float], Awaitable[None]],
    tries: int = MAX_TRIES,
) -> T:
    """What `call` returns, made again while Slack asks to wait or cannot be reached.

    Raises:
        SlackRefusedError: Slack said no.
        SlackRateLimitedError, SlackUnreachableError: the last of the tries ended so.
    """
    pause_s = FIRST_RETRY_S
    for _ in range(tries - 1):
        try:
            return await call()
        except SlackRateLimitedError as error:
            await sleep(error.retry_after_s)
        except SlackUnreachableError:
            await sleep(pause_s)
            pause_s = min(LAST_RETRY_S, pause_s * 2)
    return await call()


def _translate(method: str, error: SlackClientError) -> Exception:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    body = getattr(response, "data", None)
    code = body.get("error") if isinstance(body, dict) else None
    if status == 429 or code in _RATE_LIMITED:
        return SlackRateLimitedError(method, _retry_after(response))
    if code is None or code in _PASSING or (status or 0) >= 500:
        return SlackUnreachableError(method, str(code or status or "no answer"))
    refusal = SlackAuthError if code in _NOT_AUTHORISED else SlackRefusedError
    return refusal(method, str(code))


def _retry_after(response: Any) -> float:
    headers = getattr(response, "headers", None) or {}
    try:
        return float(headers.get("Retry-After", DEFAULT_RETRY_AFTER_S))
    except (TypeError, ValueError):
        return DEFAULT_RETRY_AFTER_S


@asynccontextmanager
async def open_web_client(*, token: str, base_url: str) -> AsyncIterator[AsyncWebClient]:
    """The SDK's client over one shared session with timeouts of its own, and no retries.

    The SDK's default handler sends a post again after a lost answer: two posts. Whoever posts
    here looks first whether it is there.
    """
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield AsyncWebClient(
            token=token,
            base_url=base_url,
            timeout=CALL_TIMEOUT_S,
            session=session,
            retry_handlers=[],
        )

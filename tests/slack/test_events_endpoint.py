import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest

from slackbot.api.server import open_server
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.events_endpoint import EVENTS_PATH, build_events_route
from tests.slack.listening import Listener, open_listener

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Sender:
    """Somebody who knows the URL, and perhaps the secret."""

    def __init__(self, session: aiohttp.ClientSession, *, url: str, secret: str) -> None:
        self._session = session
        self._secret = secret
        self.url = url

    async def send(self, body: bytes, headers: dict[str, str]) -> int:
        """The status of a request."""
        async with self._session.post(self.url, data=BytesIO(body), headers=headers) as response:
            return response.status

    def sign(self, body: bytes, *, age_s: float = 0.0) -> dict[str, str]:
        """The headers that prove that `body` is Slack's."""
        timestamp = str(int(time.time() - age_s))
        signed = b"v0:" + timestamp.encode() + b":" + body
        digest = hmac.new(self._secret.encode(), signed, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


@pytest.fixture
async def listener(slack: LocalSlack) -> AsyncIterator[Listener]:
    async with open_listener(slack) as opened:
        yield opened


@pytest.fixture
async def sender(slack: LocalSlack, listener: Listener) -> AsyncIterator[Sender]:
    route = build_events_route(listener.app, signing_secret=slack.signing_secret)
    async with (
        open_server([route], host="127.0.0.1", port=0) as port,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{port}{EVENTS_PATH}"
        slack.events_url = url
        yield Sender(session, url=url, secret=slack.signing_secret)


async def test_a_signed_event_is_heard(
    slack: LocalSlack, listener: Listener, sender: Sender
) -> None:
    slack.say(slack.alex.id, slack.support.id, "café &amp; tea?")
    await slack.wait_until(lambda: len(slack.acks) == 1)

    assert listener.notes.texts == ["café & tea?"]


async def test_the_url_is_verified(slack: LocalSlack, sender: Sender) -> None:
    assert "a-challenge-of-slack" in await slack.challenge("a-challenge-of-slack")


async def test_a_body_with_the_signature_of_another_is_refused(sender: Sender) -> None:
    signed = sender.sign(b'{"type": "event_callback"}')

    assert await sender.send(b'{"type": "event_callback", "forged": 1}', JSON | signed) == 401


@pytest.mark.parametrize("age_s", [310, -310])
async def test_a_signature_of_another_time_is_refused(sender: Sender, age_s: float) -> None:
    assert await sender.send(b"{}", JSON | sender.sign(b"{}", age_s=age_s)) == 401


@pytest.mark.parametrize("timestamp", ["soon", "", "-1", "1e9", "9" * 5_000])
async def test_a_timestamp_that_is_no_time_is_refused(sender: Sender, timestamp: str) -> None:
    signed = sender.sign(b"{}") | {"X-Slack-Request-Timestamp": timestamp}

    assert await sender.send(b"{}", JSON | signed) == 401


@pytest.mark.parametrize("signature", ["", "v0=", "v0=é", "nonsense"])
async def test_a_signature_that_is_none_is_refused(sender: Sender, signature: str) -> None:
    signed = sender.sign(b"{}") | {"X-Slack-Signature": signature}

    assert await sender.send(b"{}", JSON | signed) == 401


@pytest.mark.parametrize("body", [b"", b"garbage", b"\xff\xfe", b"[]"])
async def test_what_is_not_signed_is_not_even_read(sender: Sender, body: bytes) -> None:
    assert await sender.send(body, JSON) == 401
    assert await sender.send(body, JSON | sender.sign(b"another body")) == 401


@pytest.mark.parametrize("body", [b"{broken", b"\xff\xfe", b"[1, 2]", b'"word"', b"null", b""])
async def test_signed_json_that_is_no_object_is_a_bad_request(sender: Sender, body: bytes) -> None:
    assert await sender.send(body, JSON | sender.sign(body)) == 400


async def test_a_signed_form_that_cannot_be_decoded_is_a_bad_request(sender: Sender) -> None:
    body = b"payload=\xff\xfe"

    assert await sender.send(body, FORM | sender.sign(body)) == 400


async def test_a_body_of_more_than_a_mebibyte_is_too_large(sender: Sender) -> None:
    body = json.dumps({"type": "event_callback", "text": "x" * 1024 * 1024}).encode()

    assert await sender.send(body, JSON | sender.sign(body)) == 413


async def test_nothing_that_was_refused_was_heard(listener: Listener, sender: Sender) -> None:
    event = {"type": "message", "channel": "D1", "channel_type": "im", "user": "U1", "ts": "1.2"}
    body = json.dumps({"type": "event_callback", "event": {**event, "text": "hi"}}).encode()
    refused = await sender.send(body, JSON | sender.sign(body, age_s=310))
    accepted = await sender.send(body, JSON | sender.sign(body))

    assert (refused, accepted) == (401, 200)
    assert listener.notes.texts == ["hi"]

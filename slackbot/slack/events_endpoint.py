"""Events over HTTP: nothing is parsed before it is known to be Slack's."""

import hashlib
import hmac
import json
import re
import time
from http import HTTPStatus

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

from slackbot.slack.limits import SIGNATURE_LIFETIME_S

EVENTS_PATH = "/slack/events"
JSON_TYPE = "application/json"


def build_events_route(app: AsyncApp, *, signing_secret: str) -> web.RouteDef:
    """The route that takes events and hands them to `app`.

    What is not signed is answered with 401, what cannot be read with 400.
    """

    async def receive(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not _is_signed(request, body, signing_secret):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        text = _parse_text(request, body)
        if text is None:
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        bolt_request = AsyncBoltRequest(
            body=text, query=request.query_string, headers=dict(request.headers)
        )
        return await to_aiohttp_response(await app.async_dispatch(bolt_request))

    return web.post(EVENTS_PATH, receive)


def _is_signed(request: web.Request, body: bytes, signing_secret: str) -> bool:
    """Whether Slack sent `body`, just now.

    The SDK's verifier raises for bodies that are no text, and for headers nobody should send.
    """
    timestamp = request.headers.get("X-Slack-Request-Timestamp", "")
    signature = request.headers.get("X-Slack-Signature", "")
    if (
        not re.fullmatch("[0-9]{1,12}", timestamp)
        or abs(time.time() - int(timestamp)) > SIGNATURE_LIFETIME_S
    ):
        return False
    signed = b"v0:" + timestamp.encode() + b":" + body
    digest = hmac.new(signing_secret.encode(), signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"v0={digest}".encode(), signature.encode(errors="replace"))


def _parse_text(request: web.Request, body: bytes) -> str | None:
    """The body as text; None if it is not what Slack sends."""
    try:
        text = body.decode()
        if request.content_type == JSON_TYPE and not isinstance(json.loads(text), dict):
            return None
    except ValueError:
        return None
    return text

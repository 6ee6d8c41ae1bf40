import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient

from slackbot.playground.slack_faults import (
    Dropped,
    Held,
    RateLimited,
    Refused,
    ServerBroken,
    Slow,
)
from slackbot.playground.slack_limits import RateLimit, SlackLimits
from slackbot.playground.slack_rules import Link, links_in, pings_in
from slackbot.playground.slack_server import LocalSlack, open_local_slack
from slackbot.playground.slack_workspace import Version

METADATA = {"event_type": "part", "event_payload": {"turn": "1", "part": 0}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def slack(clock: Clock) -> AsyncIterator[LocalSlack]:
    async with open_local_slack(limits=SlackLimits.none(), clock=clock, monotonic=clock) as slack:
        yield slack


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def client(slack: LocalSlack, session: aiohttp.ClientSession) -> AsyncWebClient:
    return build_client(slack, session)


def build_client(
    slack: LocalSlack, session: aiohttp.ClientSession, *tokens: str | None
) -> AsyncWebClient:
    return AsyncWebClient(
        token=tokens[0] if tokens else slack.bot_token,
        base_url=slack.url,
        session=session,
        retry_handlers=[],
    )


@asynccontextmanager
async def refused(error: str, **fields: Any) -> AsyncIterator[None]:
    with pytest.raises(SlackApiError) as caught:
        yield
    assert caught.value.response["error"] == error
    for name, value in fields.items():
        assert caught.value.response[name] == value


@asynccontextmanager
async def open_bot(
    slack: LocalSlack, client: AsyncWebClient, *, answers: bool = True, ping_interval: float = 0.1
) -> AsyncIterator[list[dict[str, Any]]]:
    bodies: list[dict[str, Any]] = []

    async def authorize() -> AuthorizeResult:
        return AuthorizeResult(
            enterprise_id=None,
            team_id=slack.team_id,
            bot_token=slack.bot_token,
            bot_id=slack.bot_id,
            bot_user_id=slack.bot_user_id,
        )

    async def note(body: dict[str, Any]) -> None:
        bodies.append(body)
        if not answers:
            raise RuntimeError("no ack")

    app = AsyncApp(
        client=client,
        authorize=authorize,
        process_before_response=True,
        ignoring_self_events_enabled=False,
        signing_secret=slack.signing_secret,
    )
    app.event("message")(note)
    app.event("app_mention")(note)
    handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=ping_interval)
    try:
        await handler.connect_async()  # type: ignore[no-untyped-call]  # bolt's
        yield bodies
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]  # bolt's


def types_of(bodies: list[dict[str, Any]]) -> list[str]:
    return [body["event"].get("subtype") or body["event"]["type"] for body in bodies]


async def test_a_call_without_a_token_is_refused(
    slack: LocalSlack, session: aiohttp.ClientSession
) -> None:
    async with refused("not_authed"):
        await build_client(slack, session, None).auth_test()


async def test_an_unknown_token_is_refused(
    slack: LocalSlack, session: aiohttp.ClientSession
) -> None:
    async with refused("invalid_auth"):
        await build_client(slack, session, "xoxb-else").auth_test()


async def test_an_app_token_cannot_post(slack: LocalSlack, session: aiohttp.ClientSession) -> None:
    async with refused("not_allowed_token_type"):
        await build_client(slack, session, slack.app_token).chat_postMessage(
            channel=slack.support.id, text="hi"
        )


async def test_a_bot_token_cannot_open_a_socket(slack: LocalSlack, client: AsyncWebClient) -> None:
    async with refused("not_allowed_token_type"):
        await client.apps_connections_open(app_token=slack.bot_token)


async def test_a_token_in_a_form_counts(slack: LocalSlack, session: aiohttp.ClientSession) -> None:
    form = {"token": slack.bot_token}

    answer = await build_client(slack, session, None).api_call("auth.test", data=form)

    assert answer["user_id"] == slack.bot_user_id
    assert "token" not in slack.calls[0].arguments


async def test_a_method_that_does_not_exist_is_refused(client: AsyncWebClient) -> None:
    async with refused("unknown_method"):
        await client.api_call("chat.shout")


async def test_a_broken_json_body_is_refused(
    slack: LocalSlack, session: aiohttp.ClientSession
) -> None:
    headers = {
        "Authorization": f"Bearer {slack.bot_token}",
        "Content-Type": "application/json;charset=utf-8",
    }

    async with session.post(slack.url + "chat.update", data=b"{", headers=headers) as response:
        answer = await response.json()

    assert answer["error"] == "invalid_json"


async def test_a_method_needs_its_scope(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.scopes = frozenset({"im:history"})

    async with refused("missing_scope", needed="chat:write", provided="im:history"):
        await client.chat_postMessage(channel=slack.support.id, text="hi")
    async with refused("missing_scope", needed="channels:history"):
        await client.conversations_history(channel=slack.support.id)


async def test_auth_test_names_the_granted_scopes(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    slack.scopes = frozenset({"chat:write", "users:read"})

    answer = await client.auth_test()

    assert answer.headers["x-oauth-scopes"] == "chat:write,users:read"
    assert answer["bot_id"] == slack.bot_id


async def test_a_bot_posts_only_where_it_is_a_member(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    secret = slack.add_channel("secret", members=[slack.alex.id], kind="group")
    for channel, error in (
        (slack.random.id, "not_in_channel"),
        (secret.id, "channel_not_found"),
        ("C0NOWHERE", "channel_not_found"),
    ):
        async with refused(error):
            await client.chat_postMessage(channel=channel, text="hi")
        async with refused(error):
            await client.conversations_history(channel=channel)

    slack.invite(slack.random.id)
    posted = await client.chat_postMessage(channel=slack.random.id, text="hi")

    assert slack.messages(slack.random.id)[0].ts == posted["ts"]


async def test_an_archived_channel_takes_no_posts(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi")
    slack.archive(slack.support.id)

    async with refused("is_archived"):
        await client.chat_postMessage(channel=slack.support.id, text="hi")
    async with refused("is_inactive"):
        await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ho")


async def test_a_post_to_a_person_opens_a_dm(slack: LocalSlack, client: AsyncWebClient) -> None:
    posted = await client.chat_postMessage(channel=slack.jo.id, text="hi")
    opened = await client.conversations_open(users=slack.jo.id)

    assert posted["channel"] == opened["channel"]["id"] == slack.open_dm(slack.jo.id).id
    async with refused("user_not_found"):
        await client.conversations_open(users="U0NOBODY")


async def test_other_peoples_dms_do_not_exist_for_the_bot(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    dm = slack.add_channel("dm", members=[slack.alex.id, slack.sam.id], kind="im")

    async with refused("channel_not_found"):
        await client.chat_postMessage(channel=dm.id, text="hi")
    async with refused("channel_not_found"):
        await client.conversations_info(channel=dm.id)


async def test_a_bot_that_was_removed_can_do_nothing_more(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi")
    slack.kick(slack.support.id)

    async with refused("not_in_channel"):
        await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ho")
    async with refused("not_in_channel"):
        await client.reactions_add(channel=slack.support.id, name="eyes", timestamp=posted["ts"])


async def test_no_dm_opens_with_a_deactivated_person(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    slack.change_member(slack.jo.id, deleted=True)

    async with refused("user_disabled"):
        await client.conversations_open(users=slack.jo.id)
    told = await client.users_info(user=slack.jo.id)

    assert told["user"]["deleted"] is True


async def test_an_answer_needs_a_thread_that_exists(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    root = slack.say(slack.alex.id, slack.support.id, "a question")
    reply = slack.say(slack.sam.id, slack.support.id, "a thought", thread_ts=root)

    for thread_ts, error in (
        ("", "invalid_thread_ts"),
        ("today", "invalid_thread_ts"),
        ("1600000000.000000", "thread_not_found"),
        (reply, "cannot_reply_to_message"),
    ):
        async with refused(error):
            await client.chat_postMessage(channel=slack.support.id, text="hi", thread_ts=thread_ts)
    await client.chat_postMessage(channel=slack.support.id, text="hi", thread_ts=root)

    assert [m.text for m in slack.messages(slack.support.id, root)] == [
        "a question",
        "a thought",
        "hi",
    ]


async def test_only_own_messages_can_be_changed(slack: LocalSlack, client: AsyncWebClient) -> None:
    ts = slack.say(slack.alex.id, slack.support.id, "mine")

    async with refused("cant_update_message"):
        await client.chat_update(channel=slack.support.id, ts=ts, text="yours")
    async with refused("cant_delete_message"):
        await client.chat_delete(channel=slack.support.id, ts=ts)
    async with refused("message_not_found"):
        await client.chat_update(channel=slack.support.id, ts="1600000000.000000", text="x")


async def test_a_deleted_message_cannot_be_edited_but_is_remembered(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi")
    await client.chat_delete(channel=slack.support.id, ts=posted["ts"])

    async with refused("message_not_found"):
        await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ho")
    assert slack.messages(slack.support.id) == []
    assert [message.text for message in slack.all_messages] == ["hi"]


async def test_an_ephemeral_is_for_members_and_cannot_be_edited(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with refused("user_not_in_channel"):
        await client.chat_postEphemeral(channel=slack.support.id, user=slack.jo.id, text="psst")
    shown = await client.chat_postEphemeral(
        channel=slack.support.id, user=slack.alex.id, text="psst"
    )

    assert slack.ephemerals[0].text == "psst"
    async with refused("message_not_found"):
        await client.chat_update(channel=slack.support.id, ts=shown["message_ts"], text="x")


async def test_a_post_over_4000_characters_becomes_several(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="x" * 9_000)

    messages = slack.messages(slack.support.id)
    assert [len(message.text) for message in messages] == [4_000, 4_000, 1_000]
    assert posted["ts"] == messages[0].ts


async def test_an_edit_over_4000_bytes_is_refused(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi")

    async with refused("msg_too_long"):
        await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ä" * 2_001)
    await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ä" * 2_000)

    assert slack.messages(slack.support.id)[0].edits == 1


def section(chars: int) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": "x" * chars}}


def markdown(chars: int) -> dict[str, Any]:
    return {"type": "markdown", "text": "x" * chars}


@pytest.mark.parametrize(
    ("blocks", "error"),
    [
        ([markdown(6_000), markdown(6_001)], "msg_too_long"),
        ([section(3_000)] * 4 + [section(1_201)], "msg_blocks_too_long"),
        ([section(3_001)], "invalid_blocks"),
        ([section(0)], "invalid_blocks"),
        ([section(1)] * 51, "invalid_blocks"),
        ([{"type": "paragraph", "text": "x"}], "invalid_blocks"),
        ([{"type": "markdown", "text": ""}], "invalid_blocks"),
        ([{"type": "markdown", "text": "x", "verbatim": True}], "invalid_blocks"),
        ([{"type": "section", "text": "x"}], "invalid_blocks"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "invalid_blocks"),
        ([{"type": "actions", "elements": []}], "invalid_blocks"),
        ([section(1) | {"block_id": "a"}] * 2, "invalid_blocks"),
        ("[{", "invalid_blocks_format"),
    ],
)
async def test_blocks_slack_would_not_show_are_refused(
    slack: LocalSlack, client: AsyncWebClient, blocks: Any, error: str
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi")

    async with refused(error):
        await client.chat_postMessage(channel=slack.support.id, text="hi", blocks=blocks)
    async with refused(error):
        await client.chat_update(
            channel=slack.support.id, ts=posted["ts"], text="hi", blocks=blocks
        )


async def test_blocks_at_their_limits_are_shown(slack: LocalSlack, client: AsyncWebClient) -> None:
    button = {
        "type": "button",
        "action_id": "yes",
        "text": {"type": "plain_text", "text": "Yes", "emoji": True},
    }
    blocks = [markdown(12_000), {"type": "divider"}, {"type": "actions", "elements": [button]}]

    await client.chat_postMessage(channel=slack.support.id, text="hi", blocks=blocks)
    await client.api_call(
        "chat.postMessage",
        data={"channel": slack.support.id, "text": "hi", "blocks": json.dumps(blocks)},
    )

    assert [list(m.blocks) for m in slack.messages(slack.support.id)] == [blocks, blocks]


async def test_a_message_without_content_is_refused(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with refused("no_text"):
        await client.api_call("chat.postMessage", json={"channel": slack.support.id, "text": ""})


async def test_markdown_text_excludes_text(slack: LocalSlack, client: AsyncWebClient) -> None:
    async with refused("markdown_text_conflict"):
        await client.chat_postMessage(channel=slack.support.id, text="a", markdown_text="b")
    async with refused("msg_too_long"):
        await client.chat_postMessage(channel=slack.support.id, markdown_text="b" * 12_001)

    await client.chat_postMessage(channel=slack.support.id, markdown_text="b")

    assert slack.messages(slack.support.id)[0].blocks == [{"type": "markdown", "text": "b"}]


@pytest.mark.parametrize(
    "metadata",
    [{"turn": "1"}, {"event_type": "part"}, {"event_type": "part", "event_payload": "x"}],
)
async def test_metadata_of_another_shape_is_refused(
    slack: LocalSlack, client: AsyncWebClient, metadata: dict[str, Any]
) -> None:
    async with refused("invalid_metadata_format"):
        await client.chat_postMessage(channel=slack.support.id, text="hi", metadata=metadata)


async def test_metadata_is_read_back_only_when_asked_for(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi", metadata=METADATA)

    silent = await client.conversations_history(channel=slack.support.id)
    told = await client.conversations_replies(
        channel=slack.support.id, ts=posted["ts"], include_all_metadata=True
    )

    assert "metadata" not in silent["messages"][0]
    assert told["messages"][0]["metadata"] == METADATA


async def test_an_edit_keeps_metadata_unless_it_is_emptied(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi", metadata=METADATA)

    kept = await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ho")
    gone = await client.chat_update(
        channel=slack.support.id, ts=posted["ts"], text="hm", metadata={}
    )

    assert kept["message"]["metadata"] == METADATA
    assert "metadata" not in gone["message"]


async def test_an_edit_without_blocks_removes_them(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel=slack.support.id, text="hi", blocks=[section(3)])
    await client.chat_update(channel=slack.support.id, ts=posted["ts"], text="ho")

    message = slack.messages(slack.support.id)[0]
    assert list(message.blocks) == []
    assert [(v.text, len(v.blocks)) for v in message.versions] == [("hi", 1), ("ho", 0)]


async def test_markdown_is_read_back_as_rich_text(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    block = markdown(3) | {"block_id": "mine"}
    await client.chat_postMessage(channel=slack.support.id, text="hi", blocks=[block])

    history = await client.conversations_history(channel=slack.support.id)

    shown = history["messages"][0]["blocks"][0]
    assert shown["type"] == "rich_text"
    assert shown["block_id"] != "mine"


async def test_bounds_are_exclusive_unless_inclusive(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    first, second, third = (slack.say(slack.alex.id, slack.support.id, t) for t in "abc")

    async def read(**bounds: Any) -> list[str]:
        answer = await client.conversations_history(channel=slack.support.id, **bounds)
        return [message["text"] for message in answer["messages"]]

    assert await read() == ["c", "b", "a"]
    assert await read(oldest=first, latest=third) == ["b"]
    assert await read(oldest=first, latest=second, inclusive=True) == ["b", "a"]
    async with refused("invalid_ts_oldest"):
        await read(oldest="yesterday")


async def test_a_thread_is_read_root_first_in_pages(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    root = slack.say(slack.alex.id, slack.support.id, "root")
    for text in "abcd":
        slack.say(slack.sam.id, slack.support.id, text, thread_ts=root, broadcast=text == "d")

    pages = [
        [message["text"] for message in page["messages"]]
        async for page in await client.conversations_replies(
            channel=slack.support.id, ts=root, limit=2
        )
    ]
    history = await client.conversations_history(channel=slack.support.id)

    assert pages == [["root", "a"], ["b", "c"], ["d"]]
    assert [message["text"] for message in history["messages"]] == ["d", "root"]
    async with refused("invalid_cursor"):
        await client.conversations_history(channel=slack.support.id, cursor="further")
    async with refused("invalid_limit"):
        await client.conversations_history(channel=slack.support.id, limit=1_001)
    async with refused("thread_not_found"):
        await client.conversations_replies(channel=slack.support.id, ts="1600000000.000000")


async def test_a_reaction_is_set_once_and_removed_where_it_is(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    channel, ts = slack.support.id, slack.say(slack.alex.id, slack.support.id, "hi")

    async with refused("invalid_name"):
        await client.reactions_add(channel=channel, name="👀", timestamp=ts)
    async with refused("no_reaction"):
        await client.reactions_remove(channel=channel, name="eyes", timestamp=ts)
    async with refused("message_not_found"):
        await client.reactions_add(channel=channel, name="eyes", timestamp="1600000000.000000")
    await client.reactions_add(channel=channel, name="eyes", timestamp=ts)
    async with refused("already_reacted"):
        await client.reactions_add(channel=channel, name="eyes", timestamp=ts)
    assert slack.messages(channel)[0].reactions == {"eyes": [slack.bot_user_id]}
    await client.reactions_remove(channel=channel, name="eyes", timestamp=ts)

    assert slack.messages(channel)[0].reactions == {}


async def test_a_status_needs_a_message_and_goes_with_the_reply(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    channel, ts = slack.support.id, slack.say(slack.alex.id, slack.support.id, "hi")

    async with refused("thread_not_found"):
        await client.assistant_threads_setStatus(
            channel_id=channel, thread_ts="1600000000.000000", status="looking"
        )
    await client.assistant_threads_setStatus(channel_id=channel, thread_ts=ts, status="looking")
    assert slack.status_of(channel, ts) == "looking"
    await client.chat_postMessage(channel=channel, thread_ts=ts, text="found")

    assert slack.status_of(channel, ts) == ""


async def test_a_status_vanishes_after_two_minutes(
    slack: LocalSlack, client: AsyncWebClient, clock: Clock
) -> None:
    dm = slack.open_dm(slack.jo.id)
    ts = slack.say(slack.jo.id, dm.id, "hi")
    await client.assistant_threads_setStatus(channel_id=dm.id, thread_ts=ts, status="looking")

    clock.now += 119
    assert slack.status_of(dm.id, ts) == "looking"
    clock.now += 1

    assert slack.status_of(dm.id, ts) == ""


async def test_people_are_shown_with_what_the_scopes_allow(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    told = await client.users_info(user=slack.jo.id)
    slack.scopes = slack.scopes - {"users:read.email"}
    untold = await client.users_info(user=slack.jo.id)

    assert told["user"]["is_restricted"] is True
    assert told["user"]["profile"]["email"] == "jo@example.com"
    assert "email" not in untold["user"]["profile"]
    async with refused("user_not_found"):
        await client.users_info(user="U0NOBODY")


async def test_places_and_links_are_told(slack: LocalSlack, client: AsyncWebClient) -> None:
    dm = slack.open_dm(slack.jo.id)
    ts = slack.say(slack.jo.id, dm.id, "hi")

    place = await client.conversations_info(channel=dm.id)
    link = await client.chat_getPermalink(channel=dm.id, message_ts=ts)
    team = await client.team_info()

    assert (place["channel"]["is_im"], place["channel"]["user"]) == (True, slack.jo.id)
    assert link["permalink"].endswith(f"/{dm.id}/p{ts.replace('.', '')}")
    assert team["team"]["id"] == slack.team_id


async def test_too_many_edits_are_refused_until_retry_after_has_passed(
    slack: LocalSlack, client: AsyncWebClient, clock: Clock
) -> None:
    slack.limits = SlackLimits().changed(chat_update=RateLimit(per_minute=30, burst=2))
    ts = (await client.chat_postMessage(channel=slack.support.id, text="hi"))["ts"]
    for text in ("a", "b"):
        await client.chat_update(channel=slack.support.id, ts=ts, text=text)

    for _ in range(2):
        async with refused("ratelimited"):
            await client.chat_update(channel=slack.support.id, ts=ts, text="c")
    clock.now += 1.5
    with pytest.raises(SlackApiError) as caught:
        await client.chat_update(channel=slack.support.id, ts=ts, text="c")
    clock.now += 0.5
    await client.chat_update(channel=slack.support.id, ts=ts, text="d")

    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "1"
    assert slack.rate_limited == {"chat.update": 3}
    assert slack.messages(slack.support.id)[0].text == "d"


async def test_posts_are_limited_per_channel(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.limits = SlackLimits()
    for _ in range(3):
        await client.chat_postMessage(channel=slack.support.id, text="hi")

    async with refused("ratelimited"):
        await client.chat_postMessage(channel=slack.support.id, text="hi")
    await client.chat_postMessage(channel=slack.copy.id, text="hi")

    assert len(slack.messages(slack.support.id)) == 3


async def test_a_mention_is_told_twice_under_two_ids_and_files_once(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    text = f"<@{slack.bot_user_id}> look"
    async with open_bot(slack, client) as bodies:
        ts = slack.say(slack.alex.id, slack.support.id, text, files=[{"id": "F1"}])
        await slack.wait_until(lambda: len(slack.acks) == 2)

    by_type = {body["event"]["type"]: body for body in bodies}
    mention, message = by_type["app_mention"], by_type["message"]
    assert mention["event_id"] != message["event_id"]
    assert mention["event"]["ts"] == message["event"]["ts"] == ts
    assert mention["event"]["client_msg_id"] == message["event"]["client_msg_id"]
    assert "files" not in mention["event"]
    assert message["event"]["subtype"] == "file_share"
    assert message["event"]["channel_type"] == "channel"
    assert message["authorizations"][0]["user_id"] == slack.bot_user_id


async def test_outside_its_channels_a_bot_hears_only_mentions(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client) as bodies:
        slack.say(slack.alex.id, slack.random.id, "hi")
        slack.say(slack.alex.id, slack.random.id, f"hi <@{slack.bot_user_id}>")
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert types_of(bodies) == ["app_mention"]


async def test_a_dm_is_told_once_even_with_a_mention(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    dm = slack.open_dm(slack.jo.id)
    async with open_bot(slack, client) as bodies:
        slack.say(slack.jo.id, dm.id, f"hi <@{slack.bot_user_id}>")
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert types_of(bodies) == ["message"]
    assert bodies[0]["event"]["channel_type"] == "im"


async def test_events_need_their_scopes(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.scopes = frozenset({"app_mentions:read"})
    async with open_bot(slack, client) as bodies:
        slack.say(slack.alex.id, slack.support.id, f"hi <@{slack.bot_user_id}>")
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert types_of(bodies) == ["app_mention"]
    assert slack.unacked == []


async def test_messages_of_other_teams_say_so(slack: LocalSlack, client: AsyncWebClient) -> None:
    shared = slack.add_channel(
        "shared", members=[slack.kim.id, slack.bot_user_id], is_ext_shared=True
    )
    async with open_bot(slack, client) as bodies:
        slack.say(slack.kim.id, shared.id, "hello")
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert bodies[0]["is_ext_shared_channel"] is True
    assert bodies[0]["event"]["user_team"] == slack.kim.team_id


async def test_an_added_mention_is_told_and_an_unfurl_changes_no_text(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    mention = f"hi <@{slack.bot_user_id}>"
    async with open_bot(slack, client) as bodies:
        ts = slack.say(slack.alex.id, slack.support.id, "hi")
        slack.edit(slack.support.id, ts, mention)
        slack.edit(slack.support.id, ts, mention + "!")
        slack.unfurl(slack.support.id, ts)
        await slack.wait_until(lambda: len(slack.acks) == 5)

    assert sorted(types_of(bodies)) == ["app_mention", "message", *["message_changed"] * 3]
    added = next(body["event"] for body in bodies if body["event"]["type"] == "app_mention")
    assert (added["ts"], added["edited"]["user"]) == (ts, slack.alex.id)
    unfurled = bodies[-1]["event"]
    assert unfurled["message"]["text"] == unfurled["previous_message"]["text"]


async def test_a_deletion_is_told_and_leaves_a_tombstone_over_replies(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client) as bodies:
        lone = slack.say(slack.alex.id, slack.support.id, "lone")
        root = slack.say(slack.alex.id, slack.support.id, "root")
        slack.say(slack.sam.id, slack.support.id, "reply", thread_ts=root)
        slack.delete(slack.support.id, lone)
        slack.delete(slack.support.id, root)
        await slack.wait_until(lambda: len(slack.acks) == 5)

    deleted, tombstone = bodies[3]["event"], bodies[4]["event"]
    assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", lone)
    assert tombstone["message"]["subtype"] == "tombstone"
    assert [m.subtype for m in slack.messages(slack.support.id, root)] == ["tombstone", None]


async def test_what_the_bot_writes_comes_back_to_it(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client) as bodies:
        ts = (await client.chat_postMessage(channel=slack.support.id, text="hi"))["ts"]
        await client.chat_update(channel=slack.support.id, ts=ts, text="ho")
        await slack.wait_until(lambda: len(slack.acks) == 2)

    posted, changed = (body["event"] for body in bodies)
    assert (posted["user"], posted["bot_id"]) == (slack.bot_user_id, slack.bot_id)
    assert changed["message"]["bot_id"] == slack.bot_id


async def test_other_bots_joins_and_forwards_are_told_as_such(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client) as bodies:
        slack.bot_says(slack.support.id, "beep")
        slack.join(slack.jo.id, slack.support.id)
        slack.forward(slack.alex.id, slack.support.id, "old news", author_name="Sam")
        await slack.wait_until(lambda: len(slack.acks) == 3)

    bot, join, forward = (body["event"] for body in bodies)
    assert bot["bot_id"] != slack.bot_id
    assert join["subtype"] == "channel_join"
    assert forward["attachments"][0]["is_share"] is True


async def test_an_event_without_ack_comes_again_under_its_id(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        open_local_slack(ack_timeout_s=0.05, retry_delays_s=(0.0, 0.01)) as slack,
        open_bot(slack, build_client(slack, session), answers=False) as bodies,
    ):
        slack.say(slack.alex.id, slack.support.id, "hi")
        await slack.wait_until(lambda: len(slack.lost) == 1)

    assert len(bodies) == 3
    assert {body["event_id"] for body in bodies} == {slack.lost[0]["event_id"]}
    assert len(slack.acks) == 0


async def test_a_late_ack_still_ends_the_retries(session: aiohttp.ClientSession) -> None:
    async with open_local_slack(ack_timeout_s=0.02, retry_delays_s=(0.0, 60.0)) as slack:
        client = build_client(slack, session)
        opened = await client.apps_connections_open(app_token=slack.app_token)
        async with session.ws_connect(opened["url"]) as socket:
            await socket.receive_json()
            slack.say(slack.alex.id, slack.support.id, "hi")
            first, again = await socket.receive_json(), await socket.receive_json()
            await socket.send_json({"envelope_id": first["envelope_id"]})
            await slack.wait_until(lambda: len(slack.acks) == 1)

    assert (again["retry_attempt"], again["retry_reason"]) == (1, "timeout")
    assert slack.acks[0].after_s >= 0.02
    assert slack.unacked == []


async def test_the_server_closes_while_a_bot_is_connected(session: aiohttp.ClientSession) -> None:
    async with open_local_slack() as slack:
        client = build_client(slack, session)
        opened = await client.apps_connections_open(app_token=slack.app_token)
        socket = await session.ws_connect(opened["url"])
        await socket.receive_json()

    ended = await socket.receive()
    assert ended.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
    assert slack.connected_sockets == 0


async def test_an_event_can_be_delivered_several_times(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client) as bodies:
        slack.say(slack.alex.id, slack.support.id, "hi", times=3)
        await slack.wait_until(lambda: len(slack.acks) == 3)

    assert len({body["event_id"] for body in bodies}) == 1
    assert len({ack.envelope_id for ack in slack.acks}) == 3


async def test_events_wait_for_a_socket_as_far_as_they_are_kept(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    slack.max_parked = 1
    slack.say(slack.alex.id, slack.support.id, "kept")
    slack.say(slack.alex.id, slack.support.id, "lost")

    async with open_bot(slack, client) as bodies:
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert bodies[0]["event"]["text"] == "kept"
    assert slack.acks[0].retry_attempt == 1
    assert [body["event"]["text"] for body in slack.lost] == ["lost"]


async def test_a_ticket_opens_one_socket(
    slack: LocalSlack, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    url = (await client.apps_connections_open(app_token=slack.app_token))["url"]

    async with session.ws_connect(url) as socket:
        hello = await socket.receive_json()
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(url)

    assert (hello["type"], hello["num_connections"]) == ("hello", 1)


async def test_an_eleventh_socket_is_sent_away(
    slack: LocalSlack, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    async def connect() -> aiohttp.ClientWebSocketResponse:
        opened = await client.apps_connections_open(app_token=slack.app_token)
        return await session.ws_connect(opened["url"])

    sockets = [await connect() for _ in range(11)]

    greetings = [await socket.receive_json() for socket in sockets]
    assert [greeting["type"] for greeting in greetings] == [*["hello"] * 10, "disconnect"]
    assert greetings[-1]["reason"] == "too_many_websockets"
    assert slack.connected_sockets == 10
    for socket in sockets:
        await socket.close()


@pytest.mark.parametrize("reason", ["warning", "refresh_requested"])
async def test_a_bot_told_to_leave_comes_back(
    slack: LocalSlack, client: AsyncWebClient, reason: Any
) -> None:
    async with open_bot(slack, client) as bodies:
        slack.disconnect_sockets(reason)
        await slack.wait_until(lambda: slack.sockets_opened == 2)
        await slack.wait_until(lambda: slack.connected_sockets == 1)
        slack.say(slack.alex.id, slack.support.id, "still there?")
        await slack.wait_until(lambda: len(slack.acks) == 1)

    assert types_of(bodies) == ["message"]


async def test_a_bot_comes_back_after_its_socket_broke(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async with open_bot(slack, client):
        slack.drop_sockets()
        await slack.wait_until(lambda: slack.sockets_opened == 2)
        await slack.wait_until(lambda: slack.connected_sockets == 1)


async def test_a_deaf_socket_loses_events_until_the_bot_notices(
    session: aiohttp.ClientSession,
) -> None:
    async with (
        open_local_slack(ack_timeout_s=0.1, retry_delays_s=(0.2,) * 20) as slack,
        open_bot(slack, build_client(slack, session), ping_interval=0.2) as bodies,
    ):
        slack.deafen()
        slack.say(slack.alex.id, slack.support.id, "hello?")
        await slack.wait_until(lambda: len(slack.acks) == 1)

        assert slack.acks[0].retry_attempt >= 1
        assert len(bodies) == 1


async def test_a_mute_socket_says_no_hello(
    slack: LocalSlack, client: AsyncWebClient, session: aiohttp.ClientSession
) -> None:
    slack.deafen(also_new=True)
    url = (await client.apps_connections_open(app_token=slack.app_token))["url"]

    async with session.ws_connect(url) as socket:
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.05)


async def test_refused_tickets_are_counted(slack: LocalSlack, client: AsyncWebClient) -> None:
    slack.refuse_tickets = 2

    async with asyncio.timeout(5), open_bot(slack, client, ping_interval=0.01) as _:
        # The client asks again with the same ticket for ever, python-slack-sdk 3.47
        assert slack.tickets_refused == 2
        assert slack.connected_sockets == 1


@asynccontextmanager
async def open_receiver(status: int = 200, **headers: str) -> AsyncIterator[tuple[str, list[Any]]]:
    received: list[Any] = []

    async def receive(request: web.Request) -> web.Response:
        raw = await request.text()
        received.append((raw, dict(request.headers)))
        text = json.loads(raw).get("challenge", "")
        return web.Response(status=status, text=text, headers=headers)

    application = web.Application()
    application.router.add_post("/slack/events", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/slack/events", received
    finally:
        await runner.cleanup()


async def test_http_events_are_signed() -> None:
    async with open_local_slack() as slack, open_receiver() as (url, received):
        slack.events_url = url
        slack.say(slack.alex.id, slack.support.id, "hä?")
        await slack.wait_until(lambda: len(slack.acks) == 1)
        answer = await slack.challenge("are you there")

    raw, headers = received[0]
    timestamp, signature = headers["X-Slack-Request-Timestamp"], headers["X-Slack-Signature"]
    verifier = SignatureVerifier(slack.signing_secret)
    assert verifier.is_valid(raw, timestamp, signature)
    assert not verifier.is_valid(raw + " ", timestamp, signature)
    assert answer == "are you there"


async def test_http_events_are_repeated_until_answered_with_200() -> None:
    async with (
        open_local_slack(retry_delays_s=(0.0, 0.0)) as slack,
        open_receiver(500) as (url, received),
    ):
        slack.events_url = url
        slack.say(slack.alex.id, slack.support.id, "hi")
        await slack.wait_until(lambda: len(slack.lost) == 1)

    numbers = [headers.get("X-Slack-Retry-Num") for _, headers in received]
    assert numbers == [None, "1", "2"]
    assert received[1][1]["X-Slack-Retry-Reason"] == "http_error"


async def test_http_events_are_not_repeated_when_told_not_to() -> None:
    no_retry = {"x-slack-no-retry": "1"}
    async with open_local_slack() as slack, open_receiver(500, **no_retry) as (url, received):
        slack.events_url = url
        slack.say(slack.alex.id, slack.support.id, "hi")
        await slack.wait_until(lambda: len(slack.lost) == 1)

    assert len(received) == 1


async def test_http_events_that_reach_nobody_are_repeated_then_lost() -> None:
    async with open_receiver() as (url, _):
        pass  # its port is closed again
    async with open_local_slack(retry_delays_s=(0.0,)) as slack:
        slack.events_url = url
        slack.say(slack.alex.id, slack.support.id, "hi")
        await slack.wait_until(lambda: len(slack.lost) == 1)

    assert slack.unacked == []


async def test_injected_refusals_reach_the_client(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    slack.faults.add(
        Refused(method="chat.postMessage", error="fatal_error"),
        ServerBroken(method="*", status=502, where=lambda arguments: "text" in arguments),
    )

    async with refused("fatal_error"):
        await client.chat_postMessage(channel=slack.support.id, text="hi")
    await client.auth_test()
    with pytest.raises(SlackApiError) as caught:
        await client.chat_postMessage(channel=slack.support.id, text="hi")

    assert caught.value.response.status_code == 502
    assert slack.messages(slack.support.id) == []


async def test_an_injected_429_holds_its_method(
    slack: LocalSlack, client: AsyncWebClient, clock: Clock
) -> None:
    slack.faults.add(RateLimited(method="auth.test", retry_after_s=0.5))

    with pytest.raises(SlackApiError) as caught:
        await client.auth_test()
    async with refused("ratelimited"):
        await client.auth_test()
    clock.now += 0.5
    await client.auth_test()

    assert caught.value.response.headers["Retry-After"] == "0.5"


@pytest.mark.parametrize(("done", "posts"), [(False, 0), (True, 1)])
async def test_a_dropped_call_may_have_taken_effect(
    slack: LocalSlack, client: AsyncWebClient, done: bool, posts: int
) -> None:
    slack.faults.add(Dropped(method="chat.postMessage", done=done))

    with pytest.raises(aiohttp.ClientConnectionError):
        await client.chat_postMessage(channel=slack.support.id, text="hi")

    call = await slack.wait_for("chat.postMessage")
    assert (call.status, call.error) == (0, "dropped")
    assert len(slack.messages(slack.support.id)) == posts


@pytest.mark.parametrize(("before", "posts"), [(True, 0), (False, 1)])
async def test_a_held_call_waits_for_its_release(
    slack: LocalSlack, client: AsyncWebClient, before: bool, posts: int
) -> None:
    held = Held(method="chat.postMessage", before=before)
    slack.faults.add(held)

    async with asyncio.TaskGroup() as tasks:
        post = tasks.create_task(client.chat_postMessage(channel=slack.support.id, text="hi"))
        await held.reached.wait()
        posts_while_held = len(slack.messages(slack.support.id))
        held.release.set()

    assert posts_while_held == posts
    assert post.result()["ts"] == slack.messages(slack.support.id)[0].ts


async def test_the_server_closes_while_a_call_is_held(session: aiohttp.ClientSession) -> None:
    held = Held(method="auth.test")

    async def call(client: AsyncWebClient) -> None:
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.auth_test()

    async with asyncio.TaskGroup() as tasks, open_local_slack() as slack:
        slack.faults.add(held)
        tasks.create_task(call(build_client(slack, session)))
        await held.reached.wait()

    assert not held.release.is_set()


async def test_a_slow_call_and_latency_take_their_time(session: aiohttp.ClientSession) -> None:
    async with open_local_slack(latency_s=0.02) as slack:
        slack.faults.add(Slow(method="auth.test", seconds=0.03))
        await build_client(slack, session).auth_test()

    call = slack.calls[0]
    assert call.answered_at - call.arrived_at >= 0.045


async def test_wait_for_finds_past_and_future_calls(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    await client.auth_test()
    assert (await slack.wait_for("auth.test")).status == 200

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            slack.wait_for("chat.postMessage", where=lambda call: call.arguments["text"] == "b")
        )
        for text in "ab":
            await client.chat_postMessage(channel=slack.support.id, text=text)

    assert waiting.result().ts == slack.messages(slack.support.id)[1].ts
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await slack.wait_for("auth.test", after=1)


async def test_an_error_in_a_predicate_is_its_waiters(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    async def wait() -> None:
        with pytest.raises(ZeroDivisionError):
            await slack.wait_until(lambda: len(slack.calls) > 0 and 1 / 0 > 1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait())
        answer = await client.auth_test()

    assert answer["ok"]


def version(text: str = "", *blocks: dict[str, Any], finds_names: bool = False) -> Version:
    return Version(text=text, blocks=blocks, shown_at=0.0, finds_names=finds_names)


@pytest.mark.parametrize(
    ("shown", "pings"),
    [
        (version("<!here> <!channel|x> <@U0AB>"), ["<!here>", "<!channel|x>", "<@U0AB>"]),
        (version("<!subteam^S0AB|team>"), ["<!subteam^S0AB|team>"]),
        (version("&lt;!here&gt; @here <@U0AB|with space>"), []),
        (version("@here", finds_names=True), ["@here"]),
        (version("x", {"type": "markdown", "text": "`<!everyone>`"}), ["<!everyone>"]),
        (version("x", {"type": "section", "text": {"text": "<@U0AB>"}}), ["<@U0AB>"]),
    ],
)
def test_pings_are_found_wherever_they_are_parsed(shown: Version, pings: list[str]) -> None:
    assert pings_in(shown) == pings


def test_links_are_found_with_their_labels() -> None:
    block = {"type": "markdown", "text": "[a](https://a.example.com) <https://b.example.com|b>"}

    links = links_in(version("[no](https://link.example.com) <https://c.example.com>", block))

    assert set(links) == {
        Link("https://a.example.com", "a"),
        Link("https://b.example.com", "b"),
        Link("https://c.example.com", ""),
    }

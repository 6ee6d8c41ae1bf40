import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from slackbot.domain.conversation import ChannelKind, Place
from slackbot.domain.messages import Heard, HeardDeletion, HeardEdit, HeardMessage
from slackbot.slack.payloads import decode_text, parse_heard, parse_thread_message

PAYLOADS = Path(__file__).parent.parent / "fixtures" / "slack"
BOT = "U0SHOPMATE1"
TEAM = "T0THREADCO1"
PARTNERS = "T0PARTNER01"
PUBLIC = Place(ChannelKind.CHANNEL, is_shared=False)
DM = Place(ChannelKind.IM, is_shared=False)


def load_body(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    return body


def with_event(body: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**body, "event": {**body["event"], **changes}}


def build_message(**overrides: Any) -> HeardMessage:
    usual: dict[str, Any] = {
        "team": TEAM,
        "channel": "C0SUPPORT01",
        "ts": "1763200000.112309",
        "thread_ts": None,
        "author": "U0PRIYA0001",
        "author_team": TEAM,
        "place": PUBLIC,
        "text": "where is ORD-1001? Priya & co are waiting",
    }
    return HeardMessage(**(usual | overrides))


MENTION = build_message(mentions_shopmate=True)


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("app_mention", MENTION),
        ("mention_in_channel", MENTION),
        (
            "direct_message",
            build_message(
                channel="D0GUEST0001",
                ts="1763200060.004519",
                author="U0GUEST0001",
                place=DM,
                text="hi, has ord-1002 left yet?\nI moved house <last week>",
            ),
        ),
        (
            "reply_in_thread",
            build_message(
                ts="1763200120.771209",
                thread_ts="1763200000.112309",
                text="and when does it arrive?",
            ),
        ),
        (
            "reply_also_sent_to_channel",
            build_message(
                ts="1763200180.330019",
                thread_ts="1763200000.112309",
                text="it has arrived, thank you",
            ),
        ),
        (
            "file_only",
            build_message(
                channel="D0GUEST0001",
                ts="1763200240.900129",
                author="U0GUEST0001",
                place=DM,
                text="",
                file_count=1,
            ),
        ),
        (
            "forwarded",
            build_message(
                ts="1763200300.551409",
                text="can you take this one?\n\n[forwarded from Sam Lee]\n"
                "a customer asks for ORD-1003 & a refund",
                mentions_shopmate=True,
            ),
        ),
        (
            "from_another_organisation",
            build_message(
                channel="C0SHARED001",
                ts="1763200660.180019",
                author="U0PARTNER01",
                author_team=PARTNERS,
                place=Place(ChannelKind.CHANNEL, is_shared=True),
                text="is our order on its way?",
                mentions_shopmate=True,
            ),
        ),
        (
            "edited",
            HeardEdit(
                build_message(text="where is ORD-1002?", mentions_shopmate=True),
                added_mention=False,
            ),
        ),
        (
            "mention_added_by_edit",
            HeardEdit(
                build_message(
                    ts="1763200420.220019", text="where is ORD-1003?", mentions_shopmate=True
                ),
                added_mention=True,
            ),
        ),
        ("tombstone", HeardDeletion(TEAM, "C0SUPPORT01", "1763200000.112309")),
        ("deleted", HeardDeletion(TEAM, "C0SUPPORT01", "1763200120.771209")),
        ("unfurled", None),
        ("from_another_bot", None),
        ("joined_channel", None),
    ],
)
def test_an_event_says(name: str, heard: Heard | None) -> None:
    assert parse_heard(load_body(name), bot_user=BOT) == heard


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("C0SUPPORT01", ChannelKind.CHANNEL),
        ("G0SECRET001", ChannelKind.GROUP),
        ("D0GUEST0001", ChannelKind.IM),
    ],
)
def test_a_channel_type_that_is_missing_is_told_from_the_id(
    channel: str, kind: ChannelKind
) -> None:
    body = with_event(load_body("app_mention"), channel=channel)

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert heard.place == Place(kind, is_shared=False)


def test_a_channel_type_nobody_knows_is_told_from_the_id() -> None:
    body = with_event(load_body("mention_in_channel"), channel_type="app_home")

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert heard.place == PUBLIC


def test_the_root_of_a_thread_is_no_reply_to_itself() -> None:
    body = with_event(load_body("mention_in_channel"), thread_ts="1763200000.112309")

    assert parse_heard(body, bot_user=BOT) == MENTION


def test_the_team_is_the_installing_one_even_when_the_event_names_another() -> None:
    heard = parse_heard(load_body("from_another_organisation"), bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert (heard.team, heard.author_team) == (TEAM, PARTNERS)


def test_a_home_team_that_is_not_said_is_the_installing_one() -> None:
    body = load_body("file_only")
    assert "team" not in body["event"]

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert heard.author_team == TEAM


@pytest.mark.parametrize("changes", [{"user": BOT}, {"user": None}, {"user": "USLACKBOT"}])
def test_what_no_person_says_is_not_heard(changes: Mapping[str, Any]) -> None:
    body = with_event(load_body("mention_in_channel"), **changes)

    assert parse_heard(body, bot_user=BOT) is None


def test_an_edit_by_another_bot_is_not_heard() -> None:
    body = load_body("edited")
    message = {**body["event"]["message"], "bot_id": "B0OTHERBOT1"}

    assert parse_heard(with_event(body, message=message), bot_user=BOT) is None


def test_a_mention_that_an_edit_only_kept_is_not_a_new_one() -> None:
    body = load_body("edited")
    before = {**body["event"]["previous_message"], "text": f"<@{BOT}|shopmate> where is it?"}

    heard = parse_heard(with_event(body, previous_message=before), bot_user=BOT)

    assert isinstance(heard, HeardEdit)
    assert not heard.added_mention


def test_an_edit_that_does_not_say_what_was_before_is_an_edit() -> None:
    body = load_body("edited")
    del body["event"]["previous_message"]

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardEdit)
    assert heard.message.text == "where is ORD-1002?"


def test_a_mention_inside_a_forwarded_message_is_not_meant_for_shopmate() -> None:
    body = load_body("forwarded")
    shared = {**body["event"]["attachments"][0], "text": f"<@{BOT}> where is ORD-1003?"}
    body = with_event(body, text="look what Sam asked", attachments=[shared])

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert not heard.mentions_shopmate
    assert heard.text.endswith("[forwarded from Sam Lee]\nwhere is ORD-1003?")


def test_people_mentioned_are_listed_once_and_without_shopmate() -> None:
    text = f"<@U0SAM000001> and <@{BOT}>, ask <@W0GRID00001|lee> or <@U0SAM000001>"
    body = with_event(load_body("mention_in_channel"), text=text)

    heard = parse_heard(body, bot_user=BOT)

    assert isinstance(heard, HeardMessage)
    assert heard.mentions == ("U0SAM000001", "W0GRID00001")


def test_a_message_of_a_thread_is_read_like_the_event_that_brought_it() -> None:
    event = load_body("reply_in_thread")["event"]
    message = {key: event[key] for key in ("user", "type", "ts", "text", "team", "thread_ts")}

    read = parse_thread_message(
        message, team=TEAM, channel="C0SUPPORT01", place=PUBLIC, bot_user=BOT
    )

    assert read == parse_heard(load_body("reply_in_thread"), bot_user=BOT)


@pytest.mark.parametrize(
    "changes",
    [
        {"bot_id": "B0OTHERBOT1"},
        {"user": BOT},
        {"subtype": "channel_join"},
        {"subtype": "tombstone", "user": "USLACKBOT"},
    ],
)
def test_what_no_person_wrote_in_a_thread_is_left_out(changes: Mapping[str, Any]) -> None:
    event = {**load_body("reply_in_thread")["event"], **changes}

    read = parse_thread_message(event, team=TEAM, channel="C0SUPPORT01", place=PUBLIC, bot_user=BOT)

    assert read is None


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        ("a &lt;b&gt; &amp; c", "a <b> & c"),
        ("&amp;lt; stays what was typed", "&lt; stays what was typed"),
        (f"<@{BOT}> hello", "hello"),
        (f"<@{BOT}|shopmate>, hello", "hello"),
        (f"thanks <@{BOT}>", "thanks"),
        ("ask <@U0SAM000001> first", "ask @U0SAM000001 first"),
        ("ask <@U0SAM000001|sam> first", "ask @U0SAM000001 first"),
        ("in <#C0SUPPORT01|support>", "in #support"),
        ("in <#C0SUPPORT01>", "in #C0SUPPORT01"),
        ("in <#C0SUPPORT01|>", "in #C0SUPPORT01"),
        ("<!here> <!channel|channel>", "@here @channel"),
        ("<!subteam^S0TEAM00001|@support>", "@support"),
        ("<!subteam^S0TEAM00001>", "@group"),
        ("<!date^1763200000^{date}|15 November>", "15 November"),
        ("<mailto:jo@example.com|jo@example.com>", "jo@example.com"),
        ("<mailto:jo@example.com|write to Jo>", "write to Jo (jo@example.com)"),
        ("<tel:+441234567|+441234567>", "+441234567"),
        ("<https://example.com/a?b=1&amp;c=2>", "https://example.com/a?b=1&c=2"),
        ("<https://example.com/|our page>", "our page (https://example.com/)"),
        ("<https://example.com/|https://example.com/>", "https://example.com/"),
        ("a <|b> c", "a <|b> c"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("  spaces around  ", "spaces around"),
        ("", ""),
    ],
)
def test_text_is_decoded_to_what_a_person_reads(encoded: str, decoded: str) -> None:
    assert decode_text(encoded, bot_user=BOT) == decoded

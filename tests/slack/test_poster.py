from collections.abc import AsyncIterator
from typing import Any

import pytest

from slackbot.errors import SlackRefusedError, SlackUnreachableError
from slackbot.playground.slack_faults import Dropped, RateLimited, Refused, ServerBroken
from slackbot.playground.slack_server import LocalSlack
from slackbot.slack.calls import MAX_TRIES, SlackCalls, open_web_client
from slackbot.slack.pacer import PostPacer
from slackbot.slack.poster import LOOK_AGAIN_S, Poster, PostTarget
from tests.scenarios.harness import answers

EVER = 1_000
QUARTER_OF_AN_HOUR_S = 900


class Notes:
    """What is on record of the posts: part → ts."""

    def __init__(self) -> None:
        self.posts: dict[str, str | None] = {}

    async def intend_post(self, turn_id: int, part: str) -> None:
        self.posts.setdefault(part, None)

    async def save_post(self, turn_id: int, part: str, ts: str) -> None:
        self.posts[part] = ts

    async def load_post(self, turn_id: int, part: str) -> tuple[bool, str | None]:
        return part in self.posts, self.posts.get(part)

    async def forget_post(self, turn_id: int, part: str) -> None:
        self.posts.pop(part, None)

    async def save_reaction(self, turn_id: int, *, is_there: bool) -> None:
        raise NotImplementedError


class Pauses:
    """A sleep that takes no time and is remembered."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
async def poster(slack: LocalSlack, notes: Notes, pauses: Pauses) -> AsyncIterator[Poster]:
    async with open_web_client(token=slack.bot_token, base_url=slack.url) as client:
        pacer = PostPacer(lambda: 0.0, is_paced=False)
        yield Poster(calls=SlackCalls(client), posts=notes, pacer=pacer, sleep=pauses)


def target_in(slack: LocalSlack) -> PostTarget:
    ts = slack.say(slack.alex.id, slack.support.id, "hello?")
    return PostTarget(turn_id=7, channel=slack.support.id, thread_ts=ts, oldest=ts)


def texts(slack: LocalSlack) -> list[str]:
    return [message.text for message in answers(slack, slack.support.id)]


async def test_a_post_is_recorded_with_its_ts(
    slack: LocalSlack, poster: Poster, notes: Notes, pauses: Pauses
) -> None:
    posted = await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert texts(slack) == ["Hello."]
    assert posted.is_new
    assert notes.posts == {"0": posted.ts}
    assert pauses.taken == []


@pytest.mark.parametrize("done", [False, True])
async def test_a_post_whose_answer_is_lost_is_in_slack_once(
    slack: LocalSlack, poster: Poster, pauses: Pauses, done: bool
) -> None:
    slack.faults.add(Dropped(method="chat.postMessage", done=done))

    await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert texts(slack) == ["Hello."]
    assert pauses.taken[:1] == ([] if done else [LOOK_AGAIN_S])


@pytest.mark.parametrize(
    "trouble",
    [
        ServerBroken(method="conversations.replies", times=MAX_TRIES - 1),
        RateLimited(method="conversations.replies", retry_after_s=0.001, times=5),
    ],
    ids=lambda trouble: type(trouble).__name__,
)
async def test_what_cannot_be_looked_for_is_not_taken_to_be_missing(
    slack: LocalSlack, poster: Poster, trouble: Any
) -> None:
    slack.faults.add(Dropped(method="chat.postMessage", done=True), trouble)

    await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert texts(slack) == ["Hello."]


async def test_slack_is_tried_for_a_quarter_of_an_hour_and_the_intention_is_kept(
    slack: LocalSlack, poster: Poster, notes: Notes, pauses: Pauses
) -> None:
    slack.faults.add(ServerBroken(method="chat.postMessage", times=EVER))

    with pytest.raises(SlackUnreachableError):
        await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert notes.posts == {"0": None}
    assert sum(pauses.taken) == pytest.approx(QUARTER_OF_AN_HOUR_S, rel=0.1)


async def test_slack_that_cannot_be_asked_is_given_up_without_a_second_post(
    slack: LocalSlack, poster: Poster, notes: Notes
) -> None:
    slack.faults.add(
        Dropped(method="chat.postMessage", done=True),
        ServerBroken(method="conversations.replies", times=EVER),
    )

    with pytest.raises(SlackUnreachableError):
        await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert texts(slack) == ["Hello."]
    assert notes.posts == {"0": None}


async def test_a_refused_post_leaves_no_intention(
    slack: LocalSlack, poster: Poster, notes: Notes
) -> None:
    slack.faults.add(Refused(method="chat.postMessage", error="is_archived"))

    with pytest.raises(SlackRefusedError):
        await poster.post(target_in(slack), "0", content={"text": "Hello."})

    assert notes.posts == {}


async def test_what_an_earlier_attempt_posted_is_found_and_not_posted_again(
    slack: LocalSlack, poster: Poster, notes: Notes
) -> None:
    target = target_in(slack)
    first = await poster.post(target, "0", content={"text": "Hello."})
    notes.posts["0"] = None

    second = await poster.post(target, "0", content={"text": "Hello, again."}, is_intended=True)

    assert texts(slack) == ["Hello."]
    assert (second.ts, second.is_new) == (first.ts, False)
    assert notes.posts == {"0": first.ts}

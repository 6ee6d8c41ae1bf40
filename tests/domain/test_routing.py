import pytest

from slackbot.domain.conversation import ChannelKind, ConversationKey, Place
from slackbot.domain.messages import HeardMessage
from slackbot.domain.routing import Participation, Route, participation_after, route_message

JO, KIT = "U1", "U2"
CHANNEL = Place(ChannelKind.CHANNEL, is_shared=False)
DM = Place(ChannelKind.IM, is_shared=False)
GROUP_DM = Place(ChannelKind.MPIM, is_shared=False)
ROOT = "1700000000.000100"

WITH_JO = Participation(JO, is_muted=False)
WITH_NOBODY = Participation(None, is_muted=False)
MUTED = Participation(JO, is_muted=True)


def heard(
    text: str = "Where is ORD-1001?",
    *,
    by: str = JO,
    place: Place = CHANNEL,
    thread: str | None = ROOT,
    mention: bool = False,
) -> HeardMessage:
    return HeardMessage(
        team="T1",
        channel="C1",
        ts="1700000001.000100",
        thread_ts=thread,
        author=by,
        author_team="T1",
        place=place,
        text=text,
        mentions_shopmate=mention,
    )


@pytest.mark.parametrize(
    ("message", "before", "route"),
    [
        pytest.param(heard(thread=None), None, Route.IGNORE, id="channel talk"),
        pytest.param(heard(thread=None), WITH_JO, Route.IGNORE, id="top level is no thread"),
        pytest.param(heard(), None, Route.IGNORE, id="a thread it is not in"),
        pytest.param(heard("stop"), None, Route.IGNORE, id="stop in a thread it is not in"),
        pytest.param(heard(place=GROUP_DM), None, Route.IGNORE, id="a group DM is a channel"),
        pytest.param(heard(mention=True, thread=None), None, Route.ANSWER, id="mention"),
        pytest.param(heard(mention=True), None, Route.ANSWER, id="mention in any thread"),
        pytest.param(heard(mention=True, by=KIT), WITH_JO, Route.ANSWER, id="anybody mentions"),
        pytest.param(heard(mention=True), MUTED, Route.ANSWER, id="a mention ends a mute"),
        pytest.param(heard(), WITH_JO, Route.ANSWER, id="a follow-up"),
        pytest.param(heard(by=KIT), WITH_JO, Route.CONTEXT, id="another person"),
        pytest.param(heard(), WITH_NOBODY, Route.CONTEXT, id="after another person"),
        pytest.param(heard(), MUTED, Route.CONTEXT, id="muted"),
        pytest.param(heard("stop"), MUTED, Route.CONTEXT, id="stop when muted"),
        pytest.param(heard("Stop!", mention=True), WITH_JO, Route.STOP, id="stop by mention"),
        pytest.param(heard("quiet", mention=True, by=KIT), WITH_JO, Route.STOP, id="by anybody"),
        pytest.param(heard("be quiet"), WITH_JO, Route.STOP, id="stop by who it talks with"),
        pytest.param(heard("stop", by=KIT), WITH_JO, Route.CONTEXT, id="stop by another person"),
        pytest.param(heard("stop it", mention=True), WITH_JO, Route.ANSWER, id="more than stop"),
        pytest.param(heard(place=DM, thread=None), None, Route.ANSWER, id="DM"),
        pytest.param(heard(place=DM), None, Route.ANSWER, id="thread in a DM"),
        pytest.param(heard("STOP", place=DM), WITH_JO, Route.STOP, id="stop in a DM"),
    ],
)
def test_a_message_goes_where_the_design_says(
    message: HeardMessage, before: Participation | None, route: Route
) -> None:
    assert route_message(message, before) is route


@pytest.mark.parametrize(
    ("message", "before", "after"),
    [
        pytest.param(heard(mention=True), None, WITH_JO, id="mention"),
        pytest.param(heard(mention=True), MUTED, WITH_JO, id="mention after a mute"),
        pytest.param(
            heard(mention=True, by=KIT),
            WITH_JO,
            Participation(KIT, is_muted=False),
            id="taken over",
        ),
        pytest.param(heard(), WITH_JO, WITH_JO, id="follow-up"),
        pytest.param(heard(by=KIT), WITH_JO, WITH_NOBODY, id="another person"),
        pytest.param(heard(), WITH_NOBODY, WITH_NOBODY, id="nobody"),
        pytest.param(heard("stop"), WITH_JO, MUTED, id="stop"),
        pytest.param(heard(), MUTED, MUTED, id="muted stays muted"),
        pytest.param(
            heard(by=KIT), MUTED, Participation(None, is_muted=True), id="another person when muted"
        ),
        pytest.param(heard("stop", place=DM), WITH_JO, WITH_JO, id="a DM is never muted"),
    ],
)
def test_it_takes_part_as_the_design_says(
    message: HeardMessage, before: Participation | None, after: Participation
) -> None:
    assert participation_after(message, route_message(message, before), before) == after


def test_a_thread_is_answered_in_and_a_session_at_the_top_level() -> None:
    thread = ConversationKey("T1", "C1", ROOT)
    session = ConversationKey("T1", "D1", f"session:{ROOT}")

    assert (thread.thread_ts, session.thread_ts) == (ROOT, None)

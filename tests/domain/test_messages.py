import random
from datetime import UTC, datetime

import pytest

from slackbot.domain.conversation import ChannelKind, Place
from slackbot.domain.messages import (
    HeardMessage,
    MessageKind,
    StoredMessage,
    bare_words,
    in_order,
    name_mentions,
    said_text,
    ts_order,
    with_files,
)

IN_DM = Place(ChannelKind.IM, is_shared=False)


def stored(
    text: str = "Hello",
    *,
    ts: str = "1700000000.000100",
    mentions: tuple[str, ...] = (),
    files: int = 0,
) -> StoredMessage:
    return StoredMessage(
        id=1,
        ts=ts,
        author="U1",
        author_team="T1",
        kind=MessageKind.QUESTION,
        place=IN_DM,
        text=text,
        mentions=mentions,
        file_count=files,
        heard_at=datetime(2026, 3, 2, tzinfo=UTC),
    )


def heard(text: str) -> HeardMessage:
    return HeardMessage(
        team="T1",
        channel="D1",
        ts="1700000000.000100",
        thread_ts=None,
        author="U1",
        author_team="T1",
        place=IN_DM,
        text=text,
    )


@pytest.mark.parametrize(
    ("text", "is_stop"),
    [
        ("stop", True),
        ("STOP!!!", True),
        ("  Quiet. ", True),
        ("be\nquiet", True),
        ("“Be quiet”", True),
        ("*stop*", True),
        ("_stop_", True),
        ("don't stop", False),
        ("stop ORD-1001", False),
        ("stop stop", False),
        ("@U2 stop", False),
        ("", False),
        ("🛑", False),
    ],
)
def test_only_bare_words_stop_it(text: str, *, is_stop: bool) -> None:
    assert heard(text).is_stop is is_stop


@pytest.mark.parametrize(
    ("text", "is_start_over"),
    [("start over", True), ("Start over!", True), ("start over please", False), ("stop", False)],
)
def test_only_bare_words_start_over(text: str, *, is_start_over: bool) -> None:
    assert heard(text).is_start_over is is_start_over


def test_bare_words_know_letters_of_every_script() -> None:
    assert bare_words("  Café, NAÏVE, 東京 42!") == "café naïve 東京 42"


class TestOrder:
    def test_seconds_come_before_fractions(self) -> None:
        assert ts_order("999999999.999999") < ts_order("1000000000.000000")

    def test_fractions_are_numbers(self) -> None:
        assert ts_order("1700000000.000009") < ts_order("1700000000.000010")

    def test_a_ts_without_a_fraction_is_the_beginning_of_its_second(self) -> None:
        assert ts_order("1700000000") == ts_order("1700000000.000000")

    def test_messages_are_sorted_by_it(self) -> None:
        wanted = [stored(ts=f"{second}.{n:06d}") for second in (99, 100) for n in range(5)]
        shuffled = random.Random(7).sample(wanted, len(wanted))

        assert in_order(shuffled) == wanted


class TestNames:
    def test_ids_become_names(self) -> None:
        text = name_mentions("@U1 and @U2!", ("U1", "U2"), {"U1": "Jo", "U2": "Kit"})

        assert text == "@Jo and @Kit!"

    def test_an_id_that_begins_like_another_stays_its_own(self) -> None:
        text = name_mentions("@U1 @U12", ("U1", "U12"), {"U1": "Jo", "U12": "Kit"})

        assert text == "@Jo @Kit"

    def test_only_people_who_were_mentioned_are_named(self) -> None:
        assert name_mentions("@U2 mail@U1", ("U1",), {"U1": "Jo", "U2": "Kit"}) == "@U2 mail@Jo"

    def test_a_name_is_plain_text(self) -> None:
        assert name_mentions("@U1", ("U1",), {"U1": r"\g<0> @U2 \1"}) == r"@\g<0> @U2 \1"

    def test_where_nobody_is_mentioned_the_text_is_as_it_was(self) -> None:
        assert name_mentions("@U1", (), {}) == "@U1"


class TestWords:
    @pytest.mark.parametrize(
        ("text", "files", "said"),
        [
            (" Hello ", 0, "Hello"),
            ("Hello", 1, "Hello\n[a file is attached]"),
            ("Hello", 2, "Hello\n[files are attached]"),
            ("", 1, "[a file is attached]"),
            ("", 0, "[no text]"),
            (" \n ", 0, "[no text]"),
        ],
    )
    def test_a_message_is_told_with_its_files_and_never_empty(
        self, text: str, files: int, said: str
    ) -> None:
        assert said_text(stored(text, files=files), {}) == said
        assert with_files(text, files) == said

    def test_people_are_told_by_name(self) -> None:
        message = stored("Ask @U2", mentions=("U2",))

        assert said_text(message, {"U2": "Kit"}) == "Ask @Kit"

    @pytest.mark.parametrize(
        ("text", "files", "is_bare"),
        [("", 0, True), (" \n", 0, True), ("a", 0, False), ("", 1, False)],
    )
    def test_a_message_is_bare_without_words_and_files(
        self, text: str, files: int, *, is_bare: bool
    ) -> None:
        assert stored(text, files=files).is_bare is is_bare

import pytest

from slackbot.domain.answers import (
    FIRST_WORDS_CHARS,
    Draft,
    StepRestarted,
    TextDelta,
    ToolsStarted,
    TurnEvent,
)

LONG = "x" * FIRST_WORDS_CHARS
TOOLS = ToolsStarted(("get_order",))


def draft_of(*events: TurnEvent, opening: str = "") -> Draft:
    draft = Draft(opening=opening)
    for event in events:
        draft.add(event)
    return draft


def test_nothing_is_shown_before_the_first_80_characters() -> None:
    draft = draft_of(TextDelta(LONG[1:]))

    assert draft.shown == ""
    assert draft.text == LONG[1:]


def test_from_80_characters_on_everything_is_shown() -> None:
    draft = draft_of(TextDelta(LONG[1:]), TextDelta("yz"))

    assert draft.shown == draft.text == f"{LONG[1:]}yz"


def test_blanks_are_no_first_words() -> None:
    draft = draft_of(TextDelta("\n\n"), TextDelta(LONG[1:]), TextDelta("   "))

    assert draft.shown == ""
    assert draft.text == LONG[1:]


def test_short_words_before_a_tool_are_a_status_and_no_part_of_the_answer() -> None:
    draft = draft_of(TextDelta("Let me look. "), TOOLS, TextDelta("It is shipped."))

    assert draft.status == "Let me look."
    assert draft.text == "It is shipped."


def test_a_tool_without_a_word_is_no_status() -> None:
    draft = draft_of(TextDelta(" \n"), TOOLS)

    assert draft.status is None
    assert draft.text == ""


def test_long_words_before_a_tool_stay_and_the_answer_goes_on_below() -> None:
    draft = draft_of(TextDelta(LONG), TOOLS, TextDelta("It is shipped."))

    assert draft.status is None
    assert draft.shown == LONG
    assert draft.text == f"{LONG}\n\nIt is shipped."


def test_what_is_shown_of_a_later_step_waits_for_80_characters_too() -> None:
    draft = draft_of(TextDelta(LONG), TOOLS, TextDelta(LONG))

    assert draft.shown == f"{LONG}\n\n{LONG}"


def test_a_step_that_begins_anew_counts_once() -> None:
    draft = draft_of(TextDelta(LONG), StepRestarted(), TextDelta("Once"))

    assert draft.shown == ""
    assert draft.text == "Once"


def test_a_restart_leaves_earlier_steps_alone() -> None:
    draft = draft_of(TextDelta(LONG), TOOLS, TextDelta("Twi"), StepRestarted())

    assert draft.shown == draft.text == LONG


@pytest.mark.parametrize(("said", "text"), [("Hello", "Sorry. Hello"), ("  ", ""), ("", "")])
def test_an_opening_stands_only_before_words(said: str, text: str) -> None:
    assert draft_of(TextDelta(said), opening="Sorry. ").text == text


def test_a_short_answer_is_whole_once_the_turn_ends() -> None:
    assert draft_of(TextDelta(" Hi"), TextDelta("!\n")).text == "Hi!"

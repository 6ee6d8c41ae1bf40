"""From an error to the sentence a person reads: what went wrong, and what to do."""

from slackbot.errors import (
    AnswerEmptyError,
    AnswerRefusedError,
    ClaudeBusyError,
    ClaudeInterruptedError,
    ClaudeMisconfiguredError,
    ClaudeTooLongError,
    ClaudeUnreachableError,
    ShopMateError,
    TooManyStepsError,
    TurnTimeoutError,
)

_CONTACT = "If it is urgent, write to hello@threadco.com."
UNKNOWN = f"Sorry, something went wrong on my side. Please ask me again. {_CONTACT}"
TOO_MANY_ATTEMPTS = (
    f"Sorry, I was interrupted several times and could not finish this answer. Please ask me "
    f"again. {_CONTACT}"
)
LATE = "Sorry for the late answer: I was away for a while.\n\n"
CUT_AT_LIMIT = "_(This answer was cut at its length limit. Ask me to go on.)_"
STOPPED = "(stopped)"
POSTPONED = "_(I am being restarted and will complete this answer shortly.)_"
FILES_ONLY = (
    "Thank you for the file. I cannot see files or pictures yet: please tell me in words what it "
    "is about, and I will gladly help."
)
GREETING = "Hello! Ask me about an order (with its number, like ORD-1001) or about ThreadCo."
INVITE_ME = (
    "You mentioned me in {channel}, but I am not a member there, so I could not answer. Invite me "
    "with `/invite @ShopMate` and ask again."
)

_SENTENCES: tuple[tuple[type[ShopMateError], str], ...] = (
    (
        ClaudeBusyError,
        f"Sorry, I am being asked too much at once. Please try again in a minute. {_CONTACT}",
    ),
    (
        ClaudeUnreachableError,
        f"Sorry, I cannot reach what I think with. Please try again in a few minutes. {_CONTACT}",
    ),
    (
        ClaudeInterruptedError,
        f"Sorry, I was cut off in the middle of my answer. Please ask me again. {_CONTACT}",
    ),
    (
        ClaudeMisconfiguredError,
        f"Sorry, I am not set up correctly, and my operator has to fix that. {_CONTACT}",
    ),
    (
        ClaudeTooLongError,
        f"Sorry, this conversation is too long for me now. Please start a new thread. {_CONTACT}",
    ),
    (
        AnswerRefusedError,
        "Sorry, I can't help with that. I am happy to help with orders and ThreadCo's products.",
    ),
    (
        AnswerEmptyError,
        f"Sorry, I have no answer to that. Please ask me in other words. {_CONTACT}",
    ),
    (
        TooManyStepsError,
        f"Sorry, that took more steps than I may take. Please ask for less at once. {_CONTACT}",
    ),
    (
        TurnTimeoutError,
        f"Sorry, that took me too long. Please ask for less at once. {_CONTACT}",
    ),
)


def apologise(error: ShopMateError) -> str:
    """The sentence for `error`; it says nothing of how ShopMate works inside."""
    for kind, sentence in _SENTENCES:
        if isinstance(error, kind):
            return sentence
    return UNKNOWN

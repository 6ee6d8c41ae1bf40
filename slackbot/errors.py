"""Every error ShopMate raises on purpose.

ShopMateError
├── SettingsError             variables that are missing or wrong, all at once
├── StoreError                the database could not do what was asked
│   └── StoreLockedError      another process holds the database
├── TurnSupersededError       the turn was taken back: its messages changed before the first post
├── TurnPostponedError        the process ends first: the next one runs the turn again
├── SlackError                a call of Slack's Web API failed
│   ├── SlackRefusedError     Slack said no; asking again changes nothing
│   │   └── SlackAuthError    the token is not accepted: an operator must act
│   ├── SlackRateLimitedError Slack said: later
│   └── SlackUnreachableError no answer: whether it was done is unknown
├── UndeliverableError        an answer cannot be shown any more: no such channel, removed, archived
├── ClaudeError               Claude gave no usable answer
│   ├── ClaudeBusyError       rate limited or overloaded, after the SDK's retries
│   ├── ClaudeUnreachableError  no connection, no answer in time
│   ├── ClaudeInterruptedError  a stream that broke off in the middle
│   ├── ClaudeMisconfiguredError  key, billing or model id: an operator must act
│   ├── ClaudeTooLongError    the conversation is too large for the model
│   └── ClaudeRejectedError   the request was invalid, or the answer no message at all
├── AnswerError               Claude answered, but there is nothing to show
│   ├── AnswerRefusedError    Claude declined
│   ├── AnswerEmptyError      an end of turn without a word
│   ├── TooManyStepsError     still calling tools after the last step allowed
│   └── TurnTimeoutError      the turn took longer than allowed
├── ToolError                 a tool cannot do it; the sentence is for Claude
└── ImportFileError           a file that cannot be read as a table at all
"""

from pathlib import Path


class ShopMateError(Exception):
    """Anything ShopMate raises on purpose."""


class SettingsError(ShopMateError):
    """Settings that are missing or wrong; `problems` has a sentence for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class StoreError(ShopMateError):
    """The database could not do what was asked."""


class StoreLockedError(StoreError):
    """Another process holds the database file."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"database {str(path)!r} is in use by {holder}")
        self.path = path
        self.holder = holder


class TurnSupersededError(ShopMateError):
    """The turn was taken back; its messages are in another one."""

    def __init__(self, turn_id: int) -> None:
        super().__init__(f"turn {turn_id}: its messages changed before its first post")
        self.turn_id = turn_id


class TurnPostponedError(ShopMateError):
    """The process ends before the answer is there; the next one runs the turn again."""

    def __init__(self, turn_id: int) -> None:
        super().__init__(f"turn {turn_id}: postponed to the next start")
        self.turn_id = turn_id


class SlackError(ShopMateError):
    """A call of Slack's Web API failed."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"{method}: {reason}")
        self.method = method
        self.reason = reason


class SlackRefusedError(SlackError):
    """Slack said no, with `reason` as its error code."""


class SlackAuthError(SlackRefusedError):
    """The token is not accepted: an operator must act."""


class SlackRateLimitedError(SlackError):
    """Slack asks to wait `retry_after_s` seconds before calling this method again."""

    def __init__(self, method: str, retry_after_s: float) -> None:
        super().__init__(method, f"rate limited for {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class SlackUnreachableError(SlackError):
    """No answer from Slack, or one that cannot be read: it may have been done or not."""


class UndeliverableError(ShopMateError):
    """An answer that cannot be shown any more, with Slack's error code as `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the answer cannot be delivered: {reason}")
        self.reason = reason


class ClaudeError(ShopMateError):
    """Claude gave no usable answer."""

    def __init__(self, reason: str, *, request_id: str | None = None) -> None:
        super().__init__(f"Claude: {reason} (request {request_id})" if request_id else reason)
        self.reason = reason
        self.request_id = request_id


class ClaudeBusyError(ClaudeError):
    """Rate limited or overloaded, after the SDK's retries."""


class ClaudeUnreachableError(ClaudeError):
    """No connection, or no answer in time."""


class ClaudeInterruptedError(ClaudeError):
    """A stream that broke off in the middle; what came until then is no answer."""


class ClaudeMisconfiguredError(ClaudeError):
    """The key, the account or the model id is not accepted: an operator must act."""


class ClaudeTooLongError(ClaudeError):
    """The conversation is too large for the model."""


class ClaudeRejectedError(ClaudeError):
    """The request was invalid, or what came back is no message."""


class AnswerError(ShopMateError):
    """Claude answered, but there is nothing to show."""


class AnswerRefusedError(AnswerError):
    """Claude declined to answer."""


class AnswerEmptyError(AnswerError):
    """Claude ended its turn without a word."""


class TooManyStepsError(AnswerError):
    """Claude was still calling tools after the last step allowed."""


class TurnTimeoutError(AnswerError):
    """The turn took longer than allowed."""


class ToolError(ShopMateError):
    """A tool cannot do what was asked; the sentence is what Claude is told."""


class ImportFileError(ShopMateError):
    """A file that cannot be read as a table at all."""

"""An answer while it is written: what of it is shown, what is only a status."""

from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

FIRST_WORDS_CHARS = 80


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolsStarted:
    """The step ended in tool uses, which are running now."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepRestarted:
    """The step broke off and begins anew: its text counts no more."""


TurnEvent: TypeAlias = TextDelta | ToolsStarted | StepRestarted


@dataclass(slots=True)
class Draft:
    """The answer so far.

    A step's text counts from `FIRST_WORDS_CHARS` on, or when the step ends the turn; shorter text
    that leads to a tool call ("let me look that up") is a status, never part of the answer.
    """

    opening: str = ""
    _kept: list[str] = field(default_factory=list)
    _step: str = ""
    status: str | None = None

    def add(self, event: TurnEvent) -> None:
        """Takes the next event of the turn in."""
        match event:
            case TextDelta(text):
                self._step += text
            case ToolsStarted():
                self._end_step()
            case StepRestarted():
                self._step = ""
            case _:
                assert_never(event)

    @property
    def shown(self) -> str:
        """What may be shown meanwhile; empty until there are enough first words."""
        if len(self._step.strip()) >= FIRST_WORDS_CHARS:
            return self.text
        return self._joined(self._kept)

    @property
    def text(self) -> str:
        """The whole answer, should the turn end here."""
        return self._joined([*self._kept, self._step])

    def _end_step(self) -> None:
        text = self._step.strip()
        if len(text) >= FIRST_WORDS_CHARS:
            self._kept.append(text)
        elif text:
            self.status = text
        self._step = ""

    def _joined(self, pieces: list[str]) -> str:
        said = "\n\n".join(stripped for piece in pieces if (stripped := piece.strip()))
        return f"{self.opening}{said}" if said else ""

"""What Claude writes, on its way to Slack: cut to size, mended while it grows.

Claude's markdown is untrusted, and unfinished as long as it is being streamed. `split` cuts the raw
text into parts, `heal` makes an unfinished part presentable; `inert` takes away what could ping or
deceive a person, and `plain_text` says the same without markdown. All are pure.

There is no markdown library in here: none can tell where unfinished text may be cut, and a renderer
that is not Slack's own would only add a third opinion on what a link is.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from slackbot.slack.code_spans import (
    BLANKS,
    ESCAPABLE,
    MAX_CLOSING_CHARS,
    CodeSpans,
    Fence,
    closing_size,
    fence_after,
    find_code_spans,
)
from slackbot.slack.inert import LINK_TARGET, clean, count_fitting, inert, max_inert_size
from slackbot.slack.limits import MAX_MARKDOWN_CHARS

_MAX_HEALING_CHARS = 16  # marks that `heal` may add at the end of a line


def finished(text: str) -> str:
    """A part that will not grow any more, as the text of a `markdown` block.

    Every part of `split` but the last is one, and the last when the answer has ended.
    """
    return inert(text)


def presentable(text: str) -> str:
    """A part that is still growing, as the text of a `markdown` block; may be empty."""
    return inert(heal(text))


# Healing what is unfinished


# would make a heading of the line above
_HALF_RULE = re.compile(r"(?<=[^\s])\n *(?:-{1,2}|=+) *\Z")
_HALF_TOKEN = re.compile(r"<(?:[!@#][^\s<>]*|(?:https?:|mailto:)[^\s<>]*)?\Z")
_HALF_TARGET = re.compile(r"\(<?[^\s<>]*(?:[ \t]+(?:[\"'(][^\"']*)?)?\Z")
_MARKS = re.compile(r"\*+|_+|~+")


def heal(text: str) -> str:
    """`text`, which ends anywhere, with what is half-written at its end closed or held back.

    An open fence is closed, or held back while it is empty. In the last line a half link becomes
    its words, a half `<…` token is held back, open code and emphasis are closed. Text that is
    complete comes back as it is. At most a closing fence or `_MAX_HEALING_CHARS` is added.
    """
    text = clean(text)
    before: Fence | None = None
    fence: Fence | None = None
    opened_at, position = 0, 0
    for line in text.split("\n"):
        before, fence = fence, fence_after(fence, line)
        if fence is not None and before is None:
            opened_at = position
        position += len(line) + 1
    if fence is not None:
        return _close_fence(text, fence, opened_at)
    if before is not None:
        return text  # its last line closes a fence
    text = _HALF_RULE.sub("", text)
    start = text.rfind("\n") + 1
    return text[:start] + _heal_line(text[start:])


def _close_fence(text: str, fence: Fence, opened_at: int) -> str:
    start = text.rfind("\n") + 1
    if start > opened_at and set(text[start:].strip()) == {fence.mark[0]}:
        text = text[:start]  # its closing line, half-written
    if not text[opened_at + len(fence.line) :].strip():
        return text[:opened_at].rstrip()
    return text.removesuffix("\n") + "\n" + fence.closing


def _heal_line(line: str) -> str:
    spans = find_code_spans(line)
    if spans.stray is None:
        return _close_marks(_drop_half_link(_HALF_TOKEN.sub("", line), spans))
    before, ticks = line[: spans.stray.start()], spans.stray[0]
    code = line[spans.stray.end() :].rstrip().rstrip("`")
    if not code.strip():
        return _close_marks(before.rstrip())
    return _close_marks(before, code=ticks + code, code_end=ticks)


def _hide(line: str, hidden: Iterable[tuple[int, int]]) -> str:
    """`line`, of the same length, with the `hidden` stretches as letters."""
    pieces, position = [], 0
    for start, end in hidden:
        pieces += [line[position:start], "x" * (end - start)]
        position = end
    return "".join([*pieces, line[position:]])


def _drop_half_link(line: str, spans: CodeSpans) -> str:
    seen = re.sub(ESCAPABLE, "xx", _hide(line, spans.ends.items()))
    opened, closed = [], {}
    for bracket in re.finditer(r"[\[\]]", seen):
        if bracket[0] == "[":
            opened.append(bracket.start())
        elif opened:
            closed[bracket.start()] = opened.pop()
    end = seen.rfind("](")
    if end in closed and not LINK_TARGET.match(line, end + 1) and _HALF_TARGET.match(line, end + 1):
        start, label = closed[end], line[closed[end] + 1 : end]
    elif opened:
        start, end = opened[-1], len(line)
        label = line[start + 1 :]
    else:
        return line
    return line[:start].removesuffix("!") + label


def _close_marks(line: str, *, code: str = "", code_end: str = "") -> str:
    """`line` with its emphasis closed behind the open `code` that follows it."""
    seen = _hide(line, find_code_spans(line).ends.items())
    seen = re.sub(rf"{ESCAPABLE}|https?://\S*|\]\([^()\s]*\)", lambda m: "x" * len(m[0]), seen)
    seen += "x" if code else ""
    opened: list[str] = []
    for marks in _MARKS.finditer(seen):
        before = seen[: marks.start()][-1:] or " "
        after = seen[marks.end() :][:1] or " "
        left = marks[0] if before.isspace() else _close_opened(opened, marks[0])
        if not left or left == "~" or before.isalnum():
            continue
        if not after.isspace():
            opened.append(left)
        elif marks.end() == len(seen):  # it opens something that has not come yet
            return _close_marks(line[: len(seen.rstrip("*_~ \t"))])
    closing = code_end + "".join(reversed(opened))
    if not closing or len(closing) > _MAX_HEALING_CHARS:
        return line + code
    return (line + code).rstrip() + closing


def _close_opened(opened: list[str], marks: str) -> str:
    """Takes from `opened` what `marks` closes; returns what is left of `marks`."""
    while marks and opened and opened[-1][0] == marks[0]:
        closed = min(len(opened[-1]), len(marks))
        rest = opened.pop()[closed:]
        if rest:
            opened.append(rest)
        marks = marks[closed:]
    return marks


# Cutting it into parts


def split(text: str, *, max_size: int = MAX_MARKDOWN_CHARS) -> list[str]:
    """`text` in raw parts whose `presentable` and `finished` forms have at most `max_size` chars.

    A part ends behind a paragraph, else behind a line, else a line of code, where that leaves it at
    least half full; else behind a sentence or a word; else anywhere. A fence that is cut is closed,
    and opened again by the same line in the next part. Otherwise only white space is lost.

    Where a part ends is decided by the text up to the first character that did not fit. So while a
    text grows by appending, all its parts but the last are final, and their number never falls.

    Args:
        text: Claude's markdown, finished or growing.
        max_size: 400 or more, so that the longest fence finds room.
    """
    text = clean(text)
    parts: list[str] = []
    start, fence = 0, None
    while True:
        if fence is None:
            start = _skip_blank_lines(text, start)
        if not text[start:].strip():
            return parts
        opening = f"{fence.line}\n" if fence else ""
        room = max_size - _MAX_HEALING_CHARS - max_inert_size(opening)
        cut = _find_cut(text, start, fence=fence, room=room)
        if cut is None:
            return [*parts, (opening + text[start:]).rstrip()]
        closing = f"\n{cut.fence.closing}" if cut.fence else ""
        parts.append(opening + text[start : cut.at].rstrip() + closing)
        start, fence = cut.at, cut.fence


@dataclass(frozen=True, slots=True)
class _Cut:
    at: int
    fence: Fence | None


@dataclass(slots=True)
class _Cuts:
    """The latest place for a cut of each kind."""

    paragraph: _Cut | None = None
    line: _Cut | None = None
    code: _Cut | None = None

    def best(self) -> _Cut | None:
        return self.paragraph or self.line or self.code

    def add(self, cut: _Cut, *, line: str, before: Fence | None) -> None:
        if cut.fence is None and (before is not None or not line.strip()):
            self.paragraph = cut
        elif cut.fence is None:
            self.line = cut
        elif before is not None:  # never behind the fence's first line
            self.code = cut


def _skip_blank_lines(text: str, start: int) -> int:
    blank = re.compile(r"(?:[ \t]*\n)*").match(text, start)
    return blank.end() if blank else start


def _find_cut(text: str, start: int, *, fence: Fence | None, room: int) -> _Cut | None:
    """Where a part that begins at `start`, inside `fence`, must end; None if all the rest fits."""
    if len(text) - start <= room and max_inert_size(text[start:]) + MAX_CLOSING_CHARS <= room:
        return None
    spent = 0
    cuts = _Cuts()
    while True:
        end = text.find("\n", start)
        line = text[start:] if end < 0 else text[start:end]
        closing = closing_size(fence, line)
        size = max_inert_size(line)
        is_closing = fence is not None and set(line.strip(BLANKS)) <= {fence.mark[0]}
        if spent + (max(size, closing) if is_closing else size + closing) > room:
            long_line = _Cut(start + _find_cut_in_line(line, room - spent - closing, fence), fence)
            return cuts.best() or long_line
        if end < 0:
            return None
        spent += size + 1
        start = end + 1
        after = fence_after(fence, line)
        if spent >= room / 2:
            cuts.add(_Cut(start, after), line=line, before=fence)
        fence = after


_UNBROKEN = re.compile(r"\[[^\[\]]*\]\([^()\s]*\)|\[[^\[\]]*(?:\]\([^()\s]*)?\Z|`[^`]*`")
_SENTENCE_END = re.compile(r"[.!?…。][\"')*_]*\s+")
_SPACE = re.compile(r"\s+")


def _find_cut_in_line(line: str, room: int, fence: Fence | None) -> int:
    window = line[: count_fitting(line, room)]
    seen = _UNBROKEN.sub(lambda match: "x" * len(match[0]), window) if fence is None else window
    for kind in (_SENTENCE_END, _SPACE) if fence is None else (_SPACE,):
        ends = [match.end() for match in kind.finditer(seen, len(seen) // 2)]
        if ends:
            return ends[-1]
    return max(len(window), 1)

"""What Claude writes, on its way to Slack: cut to size, mended while it grows, made harmless.

Claude's markdown is untrusted, and unfinished as long as it is being streamed. `split` cuts the raw
text into parts, `heal` makes an unfinished part presentable, `inert` takes away what could ping or
deceive a person; `fallback` and `plain_parts` say the same without markdown. All are pure.

There is no markdown library in here: none can tell where unfinished text may be cut, and a renderer
that is not Slack's own would only add a third opinion on what a link is. `inert` does not need to
agree with Slack's parser: outside certain code it leaves no `](` that it has not
checked, and no `<` anywhere.
"""

import re
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from slackbot.slack.limits import MAX_FALLBACK_BYTES, MAX_MARKDOWN_CHARS, MAX_TEXT_BYTES

_MAX_FENCE_CHARS = 32  # a longer run of ` or ~ is no fence to us, so a fence always fits a part
_MAX_INFO_CHARS = 40  # the same for what stands behind it
_MAX_CLOSING_CHARS = _MAX_FENCE_CHARS + 4  # newline and indent included
_MAX_HEALING_CHARS = 16  # marks that `heal` may add at the end of a line
_MAX_PLACE_CHARS = 60  # a host shown beside a link
_LINK_CHARS = _MAX_PLACE_CHARS + 4  # what `inert` may add to one link
_BLANKS = " \t"  # all that markdown takes for an empty line, or nothing behind a fence
_HELD = "\0"  # beside a bracket that `inert` has checked; taken out at the end

_UNWANTED = re.compile("[\0\u202a-\u202e\u2066-\u2069]")  # NUL; overrides of the reading direction
_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})(.*)")
_ESCAPABLE = r"""\\[!-/:-@\[-`{-~]"""
_INLINE = re.compile(
    rf"(?P<escape>{_ESCAPABLE})|(?P<ticks>`+)|(?P<open>!?\[)|(?P<close>\])"
    r"|<(?P<auto>(?i:https?://|mailto:)[^\s<>|\\`]*|[\w.+-]+@[\w.-]+)>"
)
_INSIDE = r"[^\s()<>]"  # of a link's target
_TARGET = re.compile(
    r"\([ \t]*+(?:<(?P<angled>[^<>]{0,2000})>"
    rf"|(?P<bare>(?:{_INSIDE}|\({_INSIDE}{{0,500}}\)){{0,2000}}+))"
    r"(?:[ \t]+(?:\"[^\"]{0,300}\"|'[^']{0,300}'|\([^()]{0,300}\)))?[ \t]*+\)"
)
_WEB = re.compile(
    r"(?i:https?)://(?P<user>[\w.:+~%-]*@)?(?P<host>[\w.-]+)(?::\d{1,5})?"
    r"(?:[/?#][^\s<>|\\`\"]*)?"
)
_MAIL = re.compile(r"(?i:mailto):([\w.+-]+@[\w.-]+)(?:\?[^\s<>|\\`\"]*)?", re.ASCII)
_DEFINITION = re.compile(r"(?:[ \t>*+-]|\d+[.)])*\[")


def finished(text: str) -> str:
    """A part that will not grow any more, as the text of a `markdown` block.

    Every part of `split` but the last is one, and the last when the answer has ended.
    """
    return inert(text)


def presentable(text: str) -> str:
    """A part that is still growing, as the text of a `markdown` block; may be empty."""
    return inert(heal(text))


def _clean(text: str) -> str:
    """`text` with one kind of line end and without characters that only serve to deceive."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


# What is code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fence:
    line: str
    indent: str
    mark: str

    @property
    def closing(self) -> str:
        return self.indent + self.mark


def _fence_after(fence: _Fence | None, line: str) -> _Fence | None:
    """The fence that is open after `line`, when `fence` was open before it."""
    match = _FENCE.fullmatch(line)
    if match is None:
        return fence
    indent, mark, behind = match.groups()
    if fence is not None:
        closes = mark.startswith(fence.mark) and not behind.strip(_BLANKS)
        return None if closes else fence
    too_long = len(mark) > _MAX_FENCE_CHARS or len(behind) > _MAX_INFO_CHARS
    if too_long or (mark[0] == "`" and "`" in behind):
        return None
    return _Fence(line=line, indent=indent, mark=mark)


@dataclass(frozen=True, slots=True)
class _CodeSpans:
    """Inline code of one line: where spans start → end, and the first backticks without a pair."""

    ends: dict[int, int]
    stray: re.Match[str] | None


def _find_code_spans(line: str) -> _CodeSpans:
    runs = [run for run in re.finditer(rf"{_ESCAPABLE}|`+", line) if run[0][0] == "`"]
    later: defaultdict[int, deque[int]] = defaultdict(deque)
    for number, run in enumerate(runs):
        later[len(run[0])].append(number)
    ends: dict[int, int] = {}
    stray, number = None, 0
    while number < len(runs):
        run = runs[number]
        partners = later[len(run[0])]
        while partners and partners[0] <= number:
            partners.popleft()
        if partners:
            number = partners[0]
            ends[run.start()] = runs[number].end()
        else:
            stray = stray or run
        number += 1
    return _CodeSpans(ends, stray)


# Making it inert


def inert(text: str) -> str:
    """`text` with nothing left that pings anybody or hides where a link leads.

    - Every `<` is `&lt;`, in code too: Slack parses `<!channel>` there as well. Nothing else is
      escaped: `&amp;` would break links, and Slack does not parse what it has decoded.
    - A link to a website or mail address shows that place behind its words, unless these are the
      place; any other link, a reference and its definition become plain text, an image a link.
    - Code is otherwise left alone where it is certain to be code: in a fence of backticks that
      stands at the margin, with nothing doubtful before it, and in a span within one line.

    At most `_LINK_CHARS` are added to a link, and three to a `<`.
    """
    lines = []
    fence: _Fence | None = None
    is_certain, is_plain = True, True  # of fences so far; of backticks in this paragraph
    for line in _clean(text).split("\n"):
        before, fence = fence, _fence_after(fence, line)
        if is_certain and before is None and ("```" in line or "~~~" in line):
            is_certain = fence is not None and fence.mark[0] == "`" and not fence.indent
        if is_certain and (before is not None or fence is not None):
            lines.append(line)
            continue
        spans = _find_code_spans(line)
        is_plain = (is_plain or not line.strip(_BLANKS)) and "\\`" not in line
        is_code_certain = is_plain and "|" not in line  # a table's cells end inside code, too
        lines.append(_check_line(line, spans.ends if is_code_certain else {}))
        is_plain = is_plain and spans.stray is None
    return "\n".join(lines).replace("<", "&lt;")


def _check_line(line: str, code: dict[int, int]) -> str:
    if "]" not in line and "<" not in line:
        return line
    line = _rewrite_links(line, code, show=_show_link)
    if "]:" in line:
        line = _break_definition(line)
    line = line.replace("](", "] (").replace(f"!{_HELD}[", "! [")
    return line.replace(_HELD, "")


def _break_definition(line: str) -> str:
    """`[1]: https://…`, which could give any `[1]` a target, as `[1] https://…`."""
    starts_here = _DEFINITION.match(line) is not None
    if starts_here or not re.search(r"(?<!\\)\[", line.partition("]:")[0]):
        return re.sub(r"\]: ?", "] ", line)
    return line


_ShowLink: TypeAlias = Callable[[str, str], str]


def _rewrite_links(line: str, code: dict[int, int], *, show: _ShowLink) -> str:
    """`line` with each link as `show(label, url)` wants it; `code` (start → end) is left alone."""
    shown: list[str] = []
    opened: list[tuple[int, bool]] = []  # index in `shown`, is it an image
    newest_link = -1
    position = 0
    while token := _INLINE.search(line, position):
        shown.append(line[position : token.start()])
        position = token.end()
        match token.lastgroup:
            case "ticks" if token.start() in code:
                position = code[token.start()]
                shown.append(line[token.start() : position].replace("]", "]" + _HELD))
            case "open":
                opened.append((len(shown), token[0] == "!["))
                shown.append(token[0])
            case "close" if opened:
                start, is_image = opened.pop()
                target = _TARGET.match(line, position)
                if target is None:
                    shown.append("]")
                    continue
                position = target.end()
                label = "".join(shown[start + 1 :])
                url = target["bare"] if target["angled"] is None else target["angled"]
                if is_image and opened:
                    link = label
                elif newest_link > start:  # links don't nest
                    link = f"{label} ({url})"
                else:
                    link = show(label, url)
                    newest_link = start
                shown[start:] = [link]
            case "auto":
                before, behind = line[: token.start()][-1:], line[position:][:1]
                shown += [" " * before.isalnum(), token["auto"], " " * behind.isalnum()]
            case _:
                shown.append(token[0])
    shown.append(line[position:])
    return "".join(shown)


def _show_link(label: str, url: str) -> str:
    place = _find_place(url)
    if place is None:
        return f"{label} ({url})" if ":" in url else f"[{label}] ({url})"
    if not label.strip():
        return url
    if not _names(label, url, place):
        short = place if len(place) <= _MAX_PLACE_CHARS else "…" + place[1 - _MAX_PLACE_CHARS :]
        label = f"{label} ({short})"
    return f"{_HELD}[{label}]{_HELD}({url})"


def _find_place(url: str) -> str | None:
    """The host (in ASCII) or mail address `url` leads to; None if it should not be a link."""
    if mail := _MAIL.fullmatch(url):
        return mail[1]
    web = _WEB.fullmatch(url)
    if web is None:
        return None
    if web["host"].isascii():
        return web["host"].lower()
    host = unicodedata.normalize("NFKC", web["host"]).lower()
    if not re.fullmatch(r"[\w.-]+", host):
        return None
    labels = host.split(".")
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels
    )


def _names(label: str, url: str, place: str) -> bool:
    """Whether `label` already says where `url` leads."""
    address = url.partition("?" if url.lower().startswith("mailto:") else "#")[0]
    _, _, behind_scheme = url.partition(":")
    behind_scheme = behind_scheme.removeprefix("//")
    if "@" in behind_scheme.partition("/")[0] and "@" not in place:
        return False
    words = label.strip("*_~` ").rstrip("/").lower()
    known = {name.rstrip("/").lower() for name in (url, address, behind_scheme)}
    return words.isascii() and (words == place.lower() or (words in known and url.isascii()))


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
    text = _clean(text)
    before: _Fence | None = None
    fence: _Fence | None = None
    opened_at, position = 0, 0
    for line in text.split("\n"):
        before, fence = fence, _fence_after(fence, line)
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


def _close_fence(text: str, fence: _Fence, opened_at: int) -> str:
    start = text.rfind("\n") + 1
    if start > opened_at and set(text[start:].strip()) == {fence.mark[0]}:
        text = text[:start]  # its closing line, half-written
    if not text[opened_at + len(fence.line) :].strip():
        return text[:opened_at].rstrip()
    return text.removesuffix("\n") + "\n" + fence.closing


def _heal_line(line: str) -> str:
    spans = _find_code_spans(line)
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


def _drop_half_link(line: str, spans: _CodeSpans) -> str:
    seen = re.sub(_ESCAPABLE, "xx", _hide(line, spans.ends.items()))
    opened, closed = [], {}
    for bracket in re.finditer(r"[\[\]]", seen):
        if bracket[0] == "[":
            opened.append(bracket.start())
        elif opened:
            closed[bracket.start()] = opened.pop()
    end = seen.rfind("](")
    if end in closed and not _TARGET.match(line, end + 1) and _HALF_TARGET.match(line, end + 1):
        start, label = closed[end], line[closed[end] + 1 : end]
    elif opened:
        start, end = opened[-1], len(line)
        label = line[start + 1 :]
    else:
        return line
    return line[:start].removesuffix("!") + label


def _close_marks(line: str, *, code: str = "", code_end: str = "") -> str:
    """`line` with its emphasis closed behind the open `code` that follows it."""
    seen = _hide(line, _find_code_spans(line).ends.items())
    seen = re.sub(rf"{_ESCAPABLE}|https?://\S*|\]\([^()\s]*\)", lambda m: "x" * len(m[0]), seen)
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
    text = _clean(text)
    parts: list[str] = []
    start, fence = 0, None
    while True:
        if fence is None:
            start = _skip_blank_lines(text, start)
        if not text[start:].strip():
            return parts
        opening = f"{fence.line}\n" if fence else ""
        room = max_size - _MAX_HEALING_CHARS - _size(opening)
        cut = _find_cut(text, start, fence=fence, room=room)
        if cut is None:
            return [*parts, (opening + text[start:]).rstrip()]
        closing = f"\n{cut.fence.closing}" if cut.fence else ""
        parts.append(opening + text[start : cut.at].rstrip() + closing)
        start, fence = cut.at, cut.fence


@dataclass(frozen=True, slots=True)
class _Cut:
    at: int
    fence: _Fence | None


@dataclass(slots=True)
class _Cuts:
    """The latest place for a cut of each kind."""

    paragraph: _Cut | None = None
    line: _Cut | None = None
    code: _Cut | None = None

    def best(self) -> _Cut | None:
        return self.paragraph or self.line or self.code

    def add(self, cut: _Cut, *, line: str, before: _Fence | None) -> None:
        if cut.fence is None and (before is not None or not line.strip()):
            self.paragraph = cut
        elif cut.fence is None:
            self.line = cut
        elif before is not None:  # never behind the fence's first line
            self.code = cut


def _size(text: str) -> int:
    """An upper bound of `len(inert(text))`, the sum of what each character of `text` may become."""
    return len(text) + 3 * text.count("<") + _LINK_CHARS * text.count("](")


def _skip_blank_lines(text: str, start: int) -> int:
    blank = re.compile(r"(?:[ \t]*\n)*").match(text, start)
    return blank.end() if blank else start


def _find_cut(text: str, start: int, *, fence: _Fence | None, room: int) -> _Cut | None:
    """Where a part that begins at `start`, inside `fence`, must end; None if all the rest fits."""
    if len(text) - start <= room and _size(text[start:]) + _MAX_CLOSING_CHARS <= room:
        return None
    spent = 0
    cuts = _Cuts()
    while True:
        end = text.find("\n", start)
        line = text[start:] if end < 0 else text[start:end]
        closing = _closing_size(fence, line)
        size = _size(line)
        is_closing = fence is not None and set(line.strip(_BLANKS)) <= {fence.mark[0]}
        if spent + (max(size, closing) if is_closing else size + closing) > room:
            long_line = _Cut(start + _find_cut_in_line(line, room - spent - closing, fence), fence)
            return cuts.best() or long_line
        if end < 0:
            return None
        spent += size + 1
        start = end + 1
        after = _fence_after(fence, line)
        if spent >= room / 2:
            cuts.add(_Cut(start, after), line=line, before=fence)
        fence = after


def _closing_size(fence: _Fence | None, line: str) -> int:
    """What closing a fence may need when the part ends in `line`."""
    if fence is not None:
        return len(fence.closing) + 1
    match = _FENCE.match(line)
    return min(len(match[2]), _MAX_FENCE_CHARS) + 4 if match else 0


_UNBROKEN = re.compile(r"\[[^\[\]]*\]\([^()\s]*\)|\[[^\[\]]*(?:\]\([^()\s]*)?\Z|`[^`]*`")
_SENTENCE_END = re.compile(r"[.!?…。][\"')*_]*\s+")
_SPACE = re.compile(r"\s+")


def _find_cut_in_line(line: str, room: int, fence: _Fence | None) -> int:
    window = line[: _count_fitting(line, room)]
    seen = _UNBROKEN.sub(lambda match: "x" * len(match[0]), window) if fence is None else window
    for kind in (_SENTENCE_END, _SPACE) if fence is None else (_SPACE,):
        ends = [match.end() for match in kind.finditer(seen, len(seen) // 2)]
        if ends:
            return ends[-1]
    return max(len(window), 1)


def _count_fitting(line: str, room: int) -> int:
    """How many characters of `line` have a `_size` of at most `room`."""
    for costly in re.finditer(r"<|\]\(", line[: max(room, 0)]):
        cost = _size(costly[0]) - len(costly[0])
        if costly.end() + cost > room:
            return min(costly.start(), room)
        room -= cost
    return min(len(line), room)


# Without markdown


_HEADING = re.compile(r"\A {0,3}#{1,6}[ \t]+")
_BULLET = re.compile(r"\A([ \t]*)[*+-][ \t]+")
_KEPT = r"(?P<kept>`[^`]*`|(?:https?://|mailto:)\S+)"
_STRONG = re.compile(
    rf"{_KEPT}|(?P<mark>\*\*|~~|(?<!\w)__)(?=\S)(?P<words>.{{1,200}}?)(?<=\S)(?P=mark)"
)
_EMPHASIS = re.compile(
    rf"{_KEPT}|(?<!\w)(?P<mark>[*_])(?=\S)(?P<words>[^*_]{{1,200}}?)(?<=\S)(?P=mark)(?!\w)"
)


def fallback(markdown: str, *, max_bytes: int = MAX_FALLBACK_BYTES) -> str:
    """`markdown` as the plain `text` of a message, escaped, at most `max_bytes` of UTF-8.

    What was cut off shows as "…".
    """
    plain = _escape(_to_plain(markdown)).strip()
    if len(plain.encode()) <= max_bytes:
        return plain
    return _take(plain, max_bytes - len("…".encode())).rstrip() + "…"


def plain_parts(text: str, *, max_bytes: int = MAX_TEXT_BYTES) -> list[str]:
    """All of `text` as plain, escaped messages of at most `max_bytes` of UTF-8 each."""
    rest = _escape(_to_plain(text)).strip()
    parts = []
    while rest:
        part = _take(rest, max_bytes)
        parts.append(part.rstrip())
        rest = rest[len(part) :].lstrip("\n ")
    return parts


def _to_plain(markdown: str) -> str:
    lines = []
    fence: _Fence | None = None
    for line in _clean(markdown).split("\n"):
        before, fence = fence, _fence_after(fence, line)
        if before is None and fence is None:
            lines.append(_to_plain_line(line))
        elif before is fence:
            lines.append(line)
    return "\n".join(lines)


def _to_plain_line(line: str) -> str:
    line = _BULLET.sub(r"\1• ", _HEADING.sub("", line))
    line = _rewrite_links(line, _find_code_spans(line).ends, show=_spell_link).replace(_HELD, "")
    for kind in (_STRONG, _EMPHASIS, _EMPHASIS):
        line = kind.sub(lambda match: match["kept"] or match["words"], line)
    return line


def _spell_link(label: str, url: str) -> str:
    words = label.strip()
    place = _find_place(url) or ""
    if not words or _names(words, url, place):
        return url.removeprefix("mailto:")
    return f"{words} ({url})"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _take(escaped: str, max_bytes: int) -> str:
    """As much of `escaped` as fits, to the end of a paragraph, line or word where there is one."""
    window = escaped.encode()[:max_bytes].decode(errors="ignore")
    if len(window) == len(escaped):
        return escaped
    if window.rfind("&") > window.rfind(";"):
        window = window[: window.rfind("&")]
    for gap in ("\n\n", "\n", " "):
        at = window.rfind(gap)
        if at >= len(window) // 2:
            return window[:at]
    return window

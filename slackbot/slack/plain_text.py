"""What Claude writes, without markdown: where Slack takes only plain text, or shows only that.

Nothing pings in here either: all three characters that Slack parses are escaped.
"""

import re

from slackbot.slack.code_spans import Fence, fence_after, find_code_spans
from slackbot.slack.inert import HELD, clean, find_place, names_place, rewrite_links
from slackbot.slack.limits import MAX_FALLBACK_BYTES, MAX_TEXT_BYTES

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
    fence: Fence | None = None
    for line in clean(markdown).split("\n"):
        before, fence = fence, fence_after(fence, line)
        if before is None and fence is None:
            lines.append(_to_plain_line(line))
        elif before is fence:
            lines.append(line)
    return "\n".join(lines)


def _to_plain_line(line: str) -> str:
    line = _BULLET.sub(r"\1• ", _HEADING.sub("", line))
    line = rewrite_links(line, find_code_spans(line).ends, show=_spell_link).replace(HELD, "")
    for kind in (_STRONG, _EMPHASIS, _EMPHASIS):
        line = kind.sub(lambda match: match["kept"] or match["words"], line)
    return line


def _spell_link(label: str, url: str) -> str:
    words = label.strip()
    place = find_place(url) or ""
    if not words or names_place(words, url, place):
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

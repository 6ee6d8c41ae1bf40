"""What makes Claude's text harmless: no pings, and no link that hides where it leads.

`inert` does not need to agree with Slack's parser: outside certain code it leaves no `](` that it
has not checked, and no `<` anywhere.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import TypeAlias

from slackbot.slack.code_spans import BLANKS, ESCAPABLE, Fence, fence_after, find_code_spans

HELD = "\0"  # beside a bracket that `inert` has checked; taken out at the end
_MAX_PLACE_CHARS = 60  # a host shown beside a link
_LINK_CHARS = _MAX_PLACE_CHARS + 4  # what `inert` may add to one link

_UNWANTED = re.compile("[\0\u202a-\u202e\u2066-\u2069]")  # NUL; overrides of the reading direction
_INLINE = re.compile(
    rf"(?P<escape>{ESCAPABLE})|(?P<ticks>`+)|(?P<open>!?\[)|(?P<close>\])"
    r"|<(?P<auto>(?i:https?://|mailto:)[^\s<>|\\`]*|[\w.+-]+@[\w.-]+)>"
)
_INSIDE = r"[^\s()<>]"  # of a link's target
LINK_TARGET = re.compile(
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

ShowLink: TypeAlias = Callable[[str, str], str]
"""How a link reads, by its label and url."""


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
    fence: Fence | None = None
    is_certain, is_plain = True, True  # of fences so far; of backticks in this paragraph
    for line in clean(text).split("\n"):
        before, fence = fence, fence_after(fence, line)
        if is_certain and before is None and ("```" in line or "~~~" in line):
            is_certain = fence is not None and fence.mark[0] == "`" and not fence.indent
        if is_certain and (before is not None or fence is not None):
            lines.append(line)
            continue
        spans = find_code_spans(line)
        is_plain = (is_plain or not line.strip(BLANKS)) and "\\`" not in line
        is_code_certain = is_plain and "|" not in line  # a table's cells end inside code, too
        lines.append(_check_line(line, spans.ends if is_code_certain else {}))
        is_plain = is_plain and spans.stray is None
    return "\n".join(lines).replace("<", "&lt;")


def _check_line(line: str, code: dict[int, int]) -> str:
    if "]" not in line and "<" not in line:
        return line
    line = rewrite_links(line, code, show=_show_link)
    if "]:" in line:
        line = _break_definition(line)
    line = line.replace("](", "] (").replace(f"!{HELD}[", "! [")
    return line.replace(HELD, "")


def _break_definition(line: str) -> str:
    """`[1]: https://…`, which could give any `[1]` a target, as `[1] https://…`."""
    starts_here = _DEFINITION.match(line) is not None
    if starts_here or not re.search(r"(?<!\\)\[", line.partition("]:")[0]):
        return re.sub(r"\]: ?", "] ", line)
    return line


def clean(text: str) -> str:
    """`text` with one kind of line end and without characters that only serve to deceive."""
    return _UNWANTED.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def rewrite_links(line: str, code: dict[int, int], *, show: ShowLink) -> str:
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
                shown.append(line[token.start() : position].replace("]", "]" + HELD))
            case "open":
                opened.append((len(shown), token[0] == "!["))
                shown.append(token[0])
            case "close" if opened:
                start, is_image = opened.pop()
                target = LINK_TARGET.match(line, position)
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
    place = find_place(url)
    if place is None:
        return f"{label} ({url})" if ":" in url else f"[{label}] ({url})"
    if not label.strip():
        return url
    if not names_place(label, url, place):
        short = place if len(place) <= _MAX_PLACE_CHARS else "…" + place[1 - _MAX_PLACE_CHARS :]
        label = f"{label} ({short})"
    return f"{HELD}[{label}]{HELD}({url})"


def find_place(url: str) -> str | None:
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


def names_place(label: str, url: str, place: str) -> bool:
    """Whether `label` already says where `url` leads."""
    address = url.partition("?" if url.lower().startswith("mailto:") else "#")[0]
    _, _, behind_scheme = url.partition(":")
    behind_scheme = behind_scheme.removeprefix("//")
    if "@" in behind_scheme.partition("/")[0] and "@" not in place:
        return False
    words = label.strip("*_~` ").rstrip("/").lower()
    known = {name.rstrip("/").lower() for name in (url, address, behind_scheme)}
    return words.isascii() and (words == place.lower() or (words in known and url.isascii()))


def max_inert_size(text: str) -> int:
    """An upper bound of `len(inert(text))`, the sum of what each character of `text` may become."""
    return len(text) + 3 * text.count("<") + _LINK_CHARS * text.count("](")


def count_fitting(line: str, room: int) -> int:
    """How many characters of `line` have a `max_inert_size` of at most `room`."""
    for costly in re.finditer(r"<|\]\(", line[: max(room, 0)]):
        cost = max_inert_size(costly[0]) - len(costly[0])
        if costly.end() + cost > room:
            return min(costly.start(), room)
        room -= cost
    return min(len(line), room)

"""What Slack refuses in a message, and whom and where a message points.

The numbers are Slack's (or where Slack is vague, the lowest that was seen in the field), kept apart
from the bot's own limits on purpose: the bot must not pass because both read one constant.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MAX_POST_CHARS = 4_000  # longer plain posts are split, measured in the field 2026-08
MAX_TEXT_CHARS = 40_000  # longer posts are truncated, reference/methods/chat.postMessage#truncating
MAX_EDIT_BYTES = 4_000  # reference/methods/chat.update says characters, the field says bytes
MAX_MARKDOWN_CHARS = 12_000  # over all markdown blocks, reference/block-kit/blocks/markdown-block
MAX_BLOCKS = 50
MAX_BLOCKS_CHARS = 13_200  # slackapi/bolt-js#2509
MAX_SECTION_CHARS = 3_000
MAX_FIELD_CHARS = 2_000
MAX_HEADER_CHARS = 150
MAX_BUTTON_CHARS = 75
MAX_ID_CHARS = 255

TS_PATTERN = re.compile(r"\d{10}\.\d{6}")
EMOJI_PATTERN = re.compile(r"[a-z0-9_+'-]{1,100}(::skin-tone-[2-6])?")

# The keys a block may have besides `type` and `block_id`; None where this stand-in does not look.
BLOCK_KEYS: Mapping[str, frozenset[str] | None] = {
    "section": frozenset({"text", "fields", "accessory", "expand"}),
    "header": frozenset({"text", "level"}),
    "context": frozenset({"elements"}),
    "actions": frozenset({"elements"}),
    "context_actions": frozenset({"elements"}),
    "divider": frozenset(),
    "markdown": frozenset({"text"}),
    "image": frozenset({"image_url", "slack_file", "alt_text", "title"}),
    **dict.fromkeys(
        ("rich_text", "table", "task_card", "plan", "alert", "card", "carousel", "container"),
    ),
    **dict.fromkeys(("input", "video", "file")),
}
MAX_ELEMENTS: Mapping[str, int] = {"context": 10, "actions": 25, "context_actions": 5}

PING_PATTERN = re.compile(
    r"<!(?:channel|here|everyone)(?:\|[^<>]*)?>"
    r"|<@[UW][A-Z0-9]+(?:\|[^<>\s]*)?>"  # a label with a space does not notify, PostHog#72658
    r"|<!subteam\^S[A-Z0-9]+(?:\|[^<>]*)?>"
)
BARE_PING_PATTERN = re.compile(r"(?<![\w<!])@(?:channel|here|everyone)\b")
ANGLE_LINK_PATTERN = re.compile(r"<((?:https?://|mailto:)[^<>|\s]+)(?:\|([^<>]*))?>")
MARKDOWN_LINK_PATTERN = re.compile(r"\[([^\[\]]*)\]\(\s*<?([^()<>\s]+)")


class SlackRefusalError(Exception):
    """Slack says no: `error` is its word for why, `fields` what else the answer holds."""

    def __init__(self, error: str, **fields: Any) -> None:
        super().__init__(error)
        self.error = error
        self.fields = fields


class Shown(Protocol):
    """What people saw of a message at one time."""

    @property
    def text(self) -> str:
        """Text with Slack's escapes and control sequences."""

    @property
    def blocks(self) -> Sequence[Mapping[str, Any]]:
        """Block Kit, as it was sent."""

    @property
    def finds_names(self) -> bool:
        """Whether bare names ping, because of `parse=full` or `link_names`."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link as shown; `label` is empty where the URL itself is shown."""

    url: str
    label: str


def pings_in(shown: Shown) -> list[str]:
    """The control sequences that would notify somebody; `&lt;!here&gt;` is inert.

    Text, its code spans and every string of the blocks count: rather one too many than one too few.
    """
    texts = [shown.text, *_strings_of(shown.blocks)]
    found = [ping for text in texts for ping in PING_PATTERN.findall(text)]
    if shown.finds_names:
        found += [ping for text in texts for ping in BARE_PING_PATTERN.findall(text)]
    return found


def links_in(shown: Shown) -> list[Link]:
    """`<url|label>` anywhere, and `[label](url)` in markdown blocks. Bare URLs do not count."""
    texts = [shown.text, *_strings_of(shown.blocks)]
    links = [Link(url, label) for text in texts for url, label in ANGLE_LINK_PATTERN.findall(text)]
    markdown = [block["text"] for block in shown.blocks if block["type"] == "markdown"]
    links += [
        Link(url, label) for text in markdown for label, url in MARKDOWN_LINK_PATTERN.findall(text)
    ]
    return links


def check_content(arguments: Mapping[str, Any]) -> None:
    """Passes what may be posted.

    Raises:
        SlackRefusalError: with Slack's word for what is wrong with text, blocks or metadata.
    """
    text, blocks = arguments.get("text"), arguments.get("blocks")
    markdown_text = arguments.get("markdown_text")
    if markdown_text is not None and (text is not None or blocks is not None):
        raise SlackRefusalError("markdown_text_conflict")
    if len(markdown_text or "") > MAX_MARKDOWN_CHARS:
        raise SlackRefusalError("msg_too_long")
    if not any((text, blocks, markdown_text, arguments.get("attachments"))):
        raise SlackRefusalError("no_text")
    if blocks is not None:
        check_blocks(blocks)
    if "metadata" in arguments:
        check_metadata(arguments["metadata"])


def check_edit(arguments: Mapping[str, Any]) -> None:
    """Passes what may replace a message: what may be posted, with at most 4,000 bytes of text.

    Raises:
        SlackRefusalError: as `check_content`.
    """
    check_content(arguments)
    if len(str(arguments.get("text") or "").encode()) > MAX_EDIT_BYTES:
        raise SlackRefusalError("msg_too_long")


def check_metadata(metadata: Any) -> None:
    """Passes `{}` and `{event_type, event_payload}`.

    Raises:
        SlackRefusalError: `invalid_metadata_format`.
    """
    if metadata == {}:
        return
    match metadata:
        case {"event_type": str(event_type), "event_payload": dict(), **rest} if event_type:
            if set(rest) <= {"entities"}:
                return
    raise SlackRefusalError("invalid_metadata_format")


def check_blocks(blocks: Any) -> None:
    """Passes a list of blocks that Slack would show.

    Raises:
        SlackRefusalError: `invalid_blocks`, `msg_too_long` or `msg_blocks_too_long`.
    """
    if not isinstance(blocks, list):
        raise SlackRefusalError("invalid_blocks_format")
    if len(blocks) > MAX_BLOCKS:
        raise _invalid_blocks(f"no more than {MAX_BLOCKS} items allowed")
    for index, block in enumerate(blocks):
        problem = _problem_of_block(block)
        if problem:
            raise _invalid_blocks(f"{problem} [json-pointer:/blocks/{index}]")
    ids = [block["block_id"] for block in blocks if "block_id" in block]
    if len(set(ids)) < len(ids):
        raise _invalid_blocks("block_id already exists")
    markdown_chars = sum(len(block["text"]) for block in blocks if block["type"] == "markdown")
    if markdown_chars > MAX_MARKDOWN_CHARS:
        raise SlackRefusalError("msg_too_long")
    if sum(map(len, _strings_of(blocks))) > MAX_BLOCKS_CHARS:
        raise SlackRefusalError("msg_blocks_too_long")


def _invalid_blocks(message: str) -> SlackRefusalError:
    return SlackRefusalError(
        "invalid_blocks", response_metadata={"messages": [f"[ERROR] {message}"]}
    )


def _problem_of_block(block: Any) -> str | None:
    """What is wrong with one block, None if nothing is."""
    if not isinstance(block, dict) or block.get("type") not in BLOCK_KEYS:
        return "unsupported type"
    kind: str = block["type"]
    known = BLOCK_KEYS[kind]
    if known is not None and not set(block) <= known | {"type", "block_id"}:
        return "no more properties allowed"
    if len(str(block.get("block_id", ""))) > MAX_ID_CHARS:
        return "block_id is too long"
    match kind:
        case "markdown":
            text = block.get("text")
            return None if isinstance(text, str) and text else "missing text"
        case "header":
            return _problem_of_text(block.get("text"), MAX_HEADER_CHARS, plain_only=True)
        case "section":
            return _problem_of_section(block)
        case "context" | "actions" | "context_actions":
            return _problem_of_elements(block)
        case "image" if not block.get("alt_text"):
            return "missing alt_text"
    return None


def _problem_of_section(block: Mapping[str, Any]) -> str | None:
    text, fields = block.get("text"), block.get("fields")
    if text is None and not fields:
        return "missing text"
    if text is not None and (problem := _problem_of_text(text, MAX_SECTION_CHARS)):
        return problem
    if fields is None:
        return None
    if not isinstance(fields, list) or len(fields) > 10:
        return "fields must be a list of at most 10"
    return next(filter(None, (_problem_of_text(field, MAX_FIELD_CHARS) for field in fields)), None)


def _problem_of_elements(block: Mapping[str, Any]) -> str | None:
    elements = block.get("elements")
    if not isinstance(elements, list) or not 1 <= len(elements) <= MAX_ELEMENTS[block["type"]]:
        return "wrong number of elements"
    return next(filter(None, (_problem_of_element(element) for element in elements)), None)


def _problem_of_element(element: Any) -> str | None:
    match element:
        case {"type": "mrkdwn" | "plain_text"}:
            return _problem_of_text(element, MAX_SECTION_CHARS)
        case {"type": "button"}:
            if len(str(element.get("action_id", ""))) > MAX_ID_CHARS:
                return "action_id is too long"
            return _problem_of_text(element.get("text"), MAX_BUTTON_CHARS, plain_only=True)
        case {"type": str()}:
            return None
    return "an element has no type"


def _problem_of_text(text: Any, max_chars: int, *, plain_only: bool = False) -> str | None:
    match text:
        case {"type": "plain_text", "text": str(words), **rest} if set(rest) <= {"emoji"}:
            pass
        case {"type": "mrkdwn", "text": str(words), **rest} if set(rest) <= {"verbatim"}:
            if plain_only:
                return "must be plain_text"
        case _:
            return "not a text object"
    if not 1 <= len(words) <= max_chars:
        return f"must be between 1 and {max_chars} characters"
    return None


def _strings_of(value: Any) -> Iterator[str]:
    """Every text that blocks show: the strings under `text`, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "text" and isinstance(inner, str):
                yield inner
            else:
                yield from _strings_of(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _strings_of(inner)

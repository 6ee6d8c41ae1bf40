"""What the local stand-in for Claude answers: pure functions, the same words every time.

It knows no order and no product. Everything it says comes from the request it is given (texts,
offered tools, tool results), so a right answer proves that the bot passed the right things on.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from slackbot.playground.claude_cache import content_blocks

StopReason: TypeAlias = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
]
Body: TypeAlias = Mapping[str, Any]
Message: TypeAlias = Mapping[str, Any]

MAX_WORDS = 100_000
WORDS_PER_SENTENCE = 10
SENTENCES_PER_PARAGRAPH = 6

_ID = re.compile(r"(?<![A-Za-z0-9-])[A-Za-z]{2,5}-\d{3,8}(?![A-Za-z0-9])")
_REPEAT = re.compile(r"(?is)\b(?:repeat|say exactly):[ \t]?(.*)")
_WRITE = re.compile(r"(?i)\bwrite\b[^\n\d]{0,30}([\d,]+)\s+words\b")
_COUNT = re.compile(r"(?i)\bcount\s+(?:up\s+)?to\s+([\d,]+)")
_RECALL = re.compile(
    r"(?i)\bwhat\s+(?:did|have|was)\s+(?:i|we|it\s+i)\s+(?:just\s+|first\s+)?"
    r"(?:ask|asked|say|said|tell|told|write|written|wrote)\b|\bremember\b"
)
_PERSON = re.compile(r"(?i)\b(?:person|human|colleague|complain\w*|refund\w*|escalat\w*)\b")
_FOLLOW_UP = re.compile(
    r"(?i)\b(?:it|its|order|orders|status|track\w*|deliver\w*|parcel|package|arriv\w*)\b"
)
_THANKS = re.compile(r"(?i)\b(?:thanks|thank you|cheers|ta)\b")
_GREETING = re.compile(r"(?i)\b(?:hi|hello|hey|good (?:morning|afternoon|evening)|hiya)\b")
_CONTEXT_TAG = re.compile(r"(?is)<(context|earlier|thread|history)\b[^>]*>.*?</\1>")
_CONTEXT_HEADING = re.compile(
    r"(?i)^\W*(?:earlier|previous|context|background|before|so far|the thread)\b[^\n]*[:\])>]\**$"
)
_NEW_HEADING = re.compile(r"(?i)^\W*(?:new|newest|now|latest|current)\b[^\n:]*[:\])>]\**$")

_STATUSES = {
    "processing": "is being prepared",
    "shipped": "has been shipped",
    "delivered": "has been delivered",
}


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Words of a reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUseBlock:
    """A tool that a reply calls; the server gives it its id."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the stand-in, before `max_tokens` cuts it."""

    blocks: tuple[TextBlock | ToolUseBlock, ...]
    stop_reason: StopReason | None = None
    """None: `tool_use` where a tool is called, else `end_turn`."""


def text(words: str) -> Reply:
    """A reply that only says `words`."""
    return Reply((TextBlock(words),))


def tool_call(name: str, **tool_input: Any) -> Reply:
    """A reply that only calls the tool `name`."""
    return Reply((ToolUseBlock(name, tool_input),))


def answer(body: Body) -> Reply:
    """What the stand-in says to `body`, the checked body of a Messages API request."""
    messages: Sequence[Message] = body["messages"]
    results = [block for block in _last_blocks(messages) if block["type"] == "tool_result"]
    if results:
        return text("\n\n".join(_tell_result(result) for result in results))
    newest = _newest_text(messages)
    dictated = _follow_dictation(newest)
    if dictated:
        return text(dictated)
    calls = _choose_calls(body, newest)
    if calls:
        return Reply(calls)
    if _RECALL.search(newest):
        return text(_recall(messages))
    again = _look_up_again(body, newest)
    return Reply((again,)) if again else text(_small_talk(newest))


def _last_blocks(messages: Sequence[Message]) -> Sequence[Mapping[str, Any]]:
    return content_blocks(messages[-1]["content"])


def _said(message: Message) -> str:
    blocks = content_blocks(message["content"])
    return "\n".join(block["text"] for block in blocks if block["type"] == "text")


def _newest_text(messages: Sequence[Message]) -> str:
    """What was said last, without the older talk that a bot may have put above it."""
    lines: list[str] = []
    has_context = in_context = False
    for line in _CONTEXT_TAG.sub("", _said(messages[-1])).splitlines(keepends=True):
        if _CONTEXT_HEADING.match(line.strip()):
            has_context = in_context = True
        elif has_context and _NEW_HEADING.match(line.strip()):
            in_context = False
            lines.clear()
        elif in_context:
            in_context = bool(line.strip())
        else:
            lines.append(line)
    return "".join(lines)


def _follow_dictation(newest: str) -> str:
    repeat = _REPEAT.search(newest)
    if repeat and repeat[1].strip():
        return repeat[1]
    write = _WRITE.search(newest)
    if write:
        return _write_words(_read_number(write[1]))
    count = _COUNT.search(newest)
    if count:
        return ", ".join(str(number) for number in range(1, _read_number(count[1]) + 1))
    return ""


def _read_number(digits: str) -> int:
    return min(int(digits.replace(",", "") or 0), MAX_WORDS)


def _write_words(words: int) -> str:
    sentences = []
    for number in range(1, -(-words // WORDS_PER_SENTENCE) + 1):
        sentence = f"Line {number} tells of cotton, waves and slow summer evenings."
        room = words - (number - 1) * WORDS_PER_SENTENCE
        sentences.append(" ".join(sentence.split()[:room]).rstrip(".,") + ".")
    paragraphs = [
        " ".join(sentences[start : start + SENTENCES_PER_PARAGRAPH])
        for start in range(0, len(sentences), SENTENCES_PER_PARAGRAPH)
    ]
    return "\n\n".join(paragraphs)


def _choose_calls(body: Body, newest: str) -> tuple[ToolUseBlock, ...]:
    lookup = _find_lookup(body)
    calls = [lookup.call(order_id) for order_id in _ids_in(newest)] if lookup else []
    escalation = _find_escalation(body)
    if escalation and _PERSON.search(newest):
        calls.append(escalation.call(newest.strip()))
    if (body.get("tool_choice") or {}).get("disable_parallel_tool_use"):
        calls = calls[:1]
    return tuple(calls)


def _look_up_again(body: Body, newest: str) -> ToolUseBlock | None:
    """The lookup of the id mentioned last, when `newest` asks about it without naming it."""
    lookup = _find_lookup(body)
    if lookup is None or not _FOLLOW_UP.search(newest) or _is_only_thanks(newest):
        return None
    for message in reversed(body["messages"]):
        mentioned = _ID.findall(_said(message))
        if mentioned:
            return lookup.call(mentioned[-1])
    return None


def _ids_in(words: str) -> list[str]:
    """The ids in `words`, each once whatever its case, as they were first written."""
    first: dict[str, str] = {}
    for found in _ID.findall(words):
        first.setdefault(found.upper(), found)
    return list(first.values())


@dataclass(frozen=True, slots=True)
class _OneStringTool:
    name: str
    argument: str

    def call(self, value: str) -> ToolUseBlock:
        return ToolUseBlock(self.name, {self.argument: value})


def _find_lookup(body: Body) -> _OneStringTool | None:
    for tool, argument in _one_string_tools(body):
        if argument.endswith("_id"):
            return _OneStringTool(tool["name"], argument)
    return None


def _find_escalation(body: Body) -> _OneStringTool | None:
    for tool, argument in _one_string_tools(body):
        description = f"{tool['name']} {tool.get('description', '')}".lower()
        if not argument.endswith("_id") and "escalat" in description:
            return _OneStringTool(tool["name"], argument)
    return None


def _one_string_tools(body: Body) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The tools this request may call, of those whose only required argument is a string."""
    if (body.get("tool_choice") or {}).get("type") == "none":
        return
    for tool in body.get("tools") or []:
        schema = tool["input_schema"]
        match schema.get("required"):
            case [str(argument)] if _is_string(schema.get("properties", {}).get(argument, {})):
                yield tool, argument


def _is_string(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string"


def _tell_result(result: Mapping[str, Any]) -> str:
    words = _said({"content": result.get("content") or "Done."})
    try:
        found = json.loads(words)
    except json.JSONDecodeError:
        return words
    if not isinstance(found, dict):
        return words
    if result.get("is_error") or "status" not in found or "item" not in found:
        return _tell_plainly(found)
    return _tell_order(found)


def _tell_plainly(found: Mapping[str, Any]) -> str:
    for key in ("message", "error", "detail", "note", "result"):
        if isinstance(found.get(key), str):
            return str(found[key])
    return ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in found.items())


def _tell_order(order: Mapping[str, Any]) -> str:
    order_id = next((value for key, value in order.items() if key.endswith("_id")), "")
    subject = f"Your order {order_id}".strip()
    status = _STATUSES.get(order["status"], f"is {order['status']}")
    sentences = [f"{subject}, {order['item']}, {status}."]
    eta = order.get("estimated_delivery") or order.get("eta")
    if eta:
        sentences.append(f"It should be with you by {eta}.")
    link = order.get("track_url")
    number = order.get("tracking_number")
    if link:
        sentences.append(f"You can follow it here: {link}")
    elif number:
        sentences.append(f"Its tracking number is {number}.")
    return " ".join(sentences)


def _recall(messages: Sequence[Message]) -> str:
    earlier = [_said(message) for message in messages[:-1] if message["role"] == "user"]
    said = [words for words in earlier if words]
    if not said:
        return "This is the first message of yours that I have."
    return "Earlier you said:\n\n" + "\n\n".join(
        f"{number}. {words}" for number, words in enumerate(said, start=1)
    )


def _is_only_thanks(newest: str) -> bool:
    return "?" not in newest and _THANKS.search(newest) is not None


def _small_talk(newest: str) -> str:
    if _ids_in(newest) or _PERSON.search(newest):
        return (
            "I can't settle that from here. Please write to hello@threadco.com: "
            "the team answers within one business day."
        )
    if _is_only_thanks(newest):
        return "You're welcome! Just write again if there is anything else."
    if _GREETING.search(newest):
        return "Hello! Ask me about an order by its number, and I will look it up."
    if _FOLLOW_UP.search(newest):
        return (
            "I am happy to look into that. What is the order number? "
            "It is in the confirmation e-mail."
        )
    return (
        "I am not sure I can help with that. The team at hello@threadco.com can: "
        "they answer within one business day."
    )

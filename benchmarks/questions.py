"""Questions with one right answer each, so that a wrong or mixed-up answer is noticed.

The stand-in for Claude is given `answer` as its mind: it writes what the question asks for, and
looks the order up first where the question names one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slackbot.playground.claude_cache import content_blocks
from slackbot.playground.claude_mind import Body, Reply, text, tool_call

_QUESTION = re.compile(r"Question (\d+): (\d+) characters(?: about ([A-Z]+-\d+))?")


@dataclass(frozen=True, slots=True)
class Question:
    """Asks for an answer of `chars` characters; about an order, if it names one."""

    number: int
    chars: int
    order_id: str | None = None

    @property
    def text(self) -> str:
        """What a person writes."""
        about = f" about {self.order_id}" if self.order_id else ""
        return f"Question {self.number}: {self.chars} characters{about}, please."

    @property
    def opening(self) -> str:
        """What the answer begins with, and no other answer."""
        return f"Answer {self.number} says:"

    @property
    def answer(self) -> str:
        """The right answer."""
        line = f"the shirt of customer {self.number} has a sleeve number"
        lines = [f"{line} {index}." for index in range(self.chars // len(line) + 1)]
        whole = f"{self.opening} {' '.join(lines)}"
        return whole[: self.chars - 1].rstrip() + "."


def find_question(messages: Sequence[Mapping[str, Any]]) -> Question | None:
    """The question asked last in the `messages` of a request."""
    for message in reversed(messages):
        if message["role"] == "user":
            blocks = content_blocks(message["content"])
            said = "\n".join(block["text"] for block in blocks if block["type"] == "text")
            if found := _QUESTION.findall(said):
                number, chars, order_id = found[-1]
                return Question(int(number), int(chars), order_id or None)
    return None


def answer(body: Body) -> Reply:
    """What the stand-in for Claude says."""
    question = find_question(body["messages"])
    if question is None:
        return text("There is no question here.")
    last = content_blocks(body["messages"][-1]["content"])
    results = [block for block in last if block["type"] == "tool_result"]
    if question.order_id and not results:
        return tool_call("get_order", order_id=question.order_id)
    if not all(_tells_of(question.order_id, result) for result in results):
        return text("The order was not found.")
    return text(question.answer)


def _tells_of(order_id: str | None, result: Mapping[str, Any]) -> bool:
    blocks = content_blocks(result.get("content"))
    said = "".join(block["text"] for block in blocks)
    return not result.get("is_error") and json.loads(said)["order_id"] == order_id

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient
from anthropic.types import Message, RawMessageStreamEvent

from slackbot.playground.claude_faults import (
    ConnectionDropped,
    EndsWithoutStop,
    HtmlPage,
    HttpError,
    InvalidToolJson,
    Slow,
    Stalled,
    StreamError,
    UnknownEvents,
)
from slackbot.playground.claude_mind import (
    Reply,
    TextBlock,
    ToolUseBlock,
    answer,
    text,
    tool_call,
)
from slackbot.playground.claude_server import LocalClaude, open_local_claude

SONNET = "claude-sonnet-4-6"
HAIKU = "claude-haiku-4-5-20251001"
SONNET_5_5 = "claude-sonnet-5-5"
CACHED = {"type": "ephemeral"}
CACHED_1H = {"type": "ephemeral", "ttl": "1h"}
SALT = "The house style forbids nothing that is true. "

GET_ORDER = {
    "name": "get_order",
    "description": "Looks an order up.",
    "strict": True,
    "input_schema": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
        "additionalProperties": False,
    },
}
ESCALATE = {
    "name": "escalate",
    "description": "Asks a colleague to take over.",
    "input_schema": {
        "type": "object",
        "properties": {"summary": {"type": "string"}},
        "required": ["summary"],
    },
}


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def claude(clock: Clock) -> AsyncIterator[LocalClaude]:
    async with open_local_claude(clock=clock) as claude:
        yield claude


@pytest.fixture(params=["httpx2", "aiohttp"])
async def client(
    claude: LocalClaude, request: pytest.FixtureRequest
) -> AsyncIterator[AsyncAnthropic]:
    async with open_client(claude, aiohttp=request.param == "aiohttp") as client:
        yield client


def open_client(claude: LocalClaude, *, aiohttp: bool = False, **options: Any) -> AsyncAnthropic:
    options = {"api_key": claude.api_key, "max_retries": 0, **options}
    if aiohttp:
        options["http_client"] = DefaultAioHttpClient()
    return AsyncAnthropic(base_url=claude.url, **options)


def build_request(**changes: Any) -> dict[str, Any]:
    request = {"model": SONNET, "max_tokens": 1_024, "messages": [user("Hello")], **changes}
    return {key: value for key, value in request.items() if value is not ...}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if len(content) == 1 else list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content[0] if len(content) == 1 else list(content)}


def say(words: str, **changes: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **changes}


def use(tool_use_id: str = "toolu_1", **order: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_use_id, "name": "get_order", "input": order}


def result(tool_use_id: str = "toolu_1", content: Any = "{}", **changes: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": tool_use_id, "content": content, **changes}


async def create(client: AsyncAnthropic, **changes: Any) -> Message:
    message = await client.messages.create(**build_request(**changes))
    assert isinstance(message, Message)
    return message


async def stream(client: AsyncAnthropic, **changes: Any) -> Message:
    async with client.messages.stream(**build_request(**changes)) as events:
        return await events.get_final_message()


async def refusal_of(client: AsyncAnthropic, **changes: Any) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**build_request(**changes))
    return caught.value


async def ask(client: AsyncAnthropic, *messages: Any, **changes: Any) -> str:
    return say_of(await create(client, messages=list(messages), **changes))


def say_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def calls_of(message: Message) -> list[tuple[str, object]]:
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


# 1 to 4: key, version, model, max_tokens


async def test_a_key_that_is_not_the_bearer_token_is_refused(claude: LocalClaude) -> None:
    async with open_client(claude, api_key="sk-other") as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await create(client)

    assert caught.value.type == "authentication_error"


async def test_an_x_api_key_alone_is_refused(claude: LocalClaude) -> None:
    headers = {"x-api-key": claude.api_key, "Authorization": anthropic.omit}
    async with open_client(claude, default_headers=headers) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await create(client)

    assert claude.requests[0].error == "authentication_error: Invalid bearer token"


async def test_a_missing_version_is_refused(claude: LocalClaude) -> None:
    headers = {"anthropic-version": anthropic.omit}
    async with open_client(claude, default_headers=headers) as client:
        refusal = await refusal_of(client)

    assert refusal.status_code == 400
    assert "anthropic-version" in str(refusal)


async def test_an_unknown_version_is_refused(claude: LocalClaude) -> None:
    async with open_client(claude, default_headers={"anthropic-version": "2031-01-01"}) as client:
        refusal = await refusal_of(client)

    assert "not a valid version" in str(refusal)


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
async def test_sampling_parameters_are_refused(client: AsyncAnthropic, name: str) -> None:
    refusal = await refusal_of(client, extra_body={name: 1})

    assert refusal.status_code == 400
    assert name in str(refusal)


async def test_sampling_parameters_pass_on_the_old_version(claude: LocalClaude) -> None:
    async with open_client(claude, default_headers={"anthropic-version": "2023-06-01"}) as client:
        message = await create(client, extra_body={"temperature": 1})

    assert message.stop_reason == "end_turn"


async def test_an_unknown_model_is_not_found(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        await create(client, model="claude-sonnet-9")

    assert caught.value.type == "not_found_error"


async def test_a_request_without_max_tokens_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, extra_body={"max_tokens": None})

    assert "max_tokens: Field required" in str(refusal)


async def test_more_max_tokens_than_the_model_writes_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, model=HAIKU, max_tokens=64_001, timeout=5)

    assert "64001 > 64000" in str(refusal)


# 5 to 12: the history

INVALID_HISTORIES = {
    "no message at all": [],
    "the assistant first": [assistant("Hi"), user("Hello")],
    "an unknown role": [{"role": "tool", "content": "Hello"}],
    "a system message": [user("Hello"), {"role": "system", "content": "Be brief"}],
    "empty user text": [user("")],
    "an empty list of blocks": [user([])],
    "an empty answer in the middle": [user("Hello"), assistant([]), user("Hello?")],
    "an empty text block": [user("Hello"), assistant([say("")]), user("Hello?")],
    "a blank text block": [user([say(" \n")])],
    "a breakpoint on empty text": [user([say("", cache_control=CACHED)])],
    "an unknown block": [user([{"type": "hologram"}])],
    "an unknown key in a block": [user([say("Hello", parsed_output=None)])],
    "an unknown key in a message": [{**user("Hello"), "name": "Ann"}],
    "a tool use by the user": [user([use()])],
    "a tool result by the assistant": [user("Hello"), assistant([result()]), user("Hello?")],
    "a document by the assistant": [user("Hi"), assistant([{"type": "document"}]), user("Yes?")],
    "citations in user text": [user([say("Hello", citations=[{"type": "char_location"}])])],
    "input that is no object": [user("Hi"), assistant([use() | {"input": "{}"}]), user([result()])],
    "a message that is a word": ["Hello"],
    "content that is a number": [user(1)],
    "text that is a number": [user([say("") | {"text": 1}])],
    "a tool use without an id": [user("Hi"), assistant([{**use(), "id": None}]), user([result()])],
    "a tool result without an id": [user([{"type": "tool_result", "content": "{}"}])],
    "a tool result of a number": [user("Hi"), assistant([use()]), user([result(content=1)])],
    "a tool use in a result": [user("Hi"), assistant([use()]), user([result(content=[use("t")])])],
    "prefill on 4.6": [user("Hello"), assistant("It is")],
}


@pytest.mark.parametrize("messages", INVALID_HISTORIES.values(), ids=INVALID_HISTORIES.keys())
async def test_an_invalid_history_is_refused(client: AsyncAnthropic, messages: Any) -> None:
    refusal = await refusal_of(client, messages=messages)

    assert isinstance(refusal, anthropic.BadRequestError)
    assert refusal.type == "invalid_request_error"


@pytest.mark.parametrize("body", [["Hello"], {}], ids=["a list", "nothing"])
async def test_a_body_that_is_no_request_is_refused(
    claude: LocalClaude, client: AsyncAnthropic, body: Any
) -> None:
    with pytest.raises(anthropic.BadRequestError):
        await client.post("/v1/messages", cast_to=object, body=body)

    assert claude.requests[0].body == {}


async def test_an_unknown_key_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, extra_body={"thread": {"type": "create"}})

    assert "thread: Extra inputs are not permitted" in str(refusal)


UNANSWERED = {
    "at the end": [assistant([use()])],
    "by text": [assistant([use()]), user("Hello?")],
    "after text": [assistant([use()]), user([say("Here:"), result()])],
    "one of two": [assistant([use("toolu_1"), use("toolu_2")]), user([result("toolu_1")])],
    "one message too late": [assistant([use()]), user("Wait"), user([result()])],
}


@pytest.mark.parametrize("messages", UNANSWERED.values(), ids=UNANSWERED.keys())
async def test_a_tool_use_without_its_result_is_refused(
    client: AsyncAnthropic, messages: Any
) -> None:
    refusal = await refusal_of(client, messages=[user("Where is it?"), *messages])

    assert "without `tool_result` blocks immediately" in str(refusal)


async def test_a_tool_result_without_its_tool_use_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, messages=[user([result("toolu_9")])])

    assert "unexpected `tool_use_id`" in str(refusal)


async def test_two_results_for_one_tool_use_are_refused(client: AsyncAnthropic) -> None:
    messages = [user("Hi"), assistant([use()]), user([result(), result()])]

    refusal = await refusal_of(client, messages=messages)

    assert "single result" in str(refusal)


@pytest.mark.parametrize("uses", [["toolu_1", "toolu_1"], ["toolu_2"]], ids=["turn", "history"])
async def test_a_tool_use_id_used_twice_is_refused(client: AsyncAnthropic, uses: list[str]) -> None:
    earlier = [user("Hi"), assistant([use("toolu_2")]), user([result("toolu_2")])]
    again = [assistant([use(id_) for id_ in uses]), user([result(id_) for id_ in set(uses)])]

    refusal = await refusal_of(client, messages=[*earlier, *again])

    assert "ids must be unique" in str(refusal)


async def test_a_prefill_that_ends_in_a_blank_is_refused(client: AsyncAnthropic) -> None:
    messages = [user("Hello"), assistant("It is ")]

    refusal = await refusal_of(client, model=HAIKU, messages=messages)

    assert "trailing whitespace" in str(refusal)


async def test_a_prefill_passes_on_haiku_4_5(client: AsyncAnthropic) -> None:
    message = await create(client, model=HAIKU, messages=[user("Hello"), assistant("It is")])

    assert message.stop_reason == "end_turn"


async def test_a_whole_tool_conversation_passes(client: AsyncAnthropic) -> None:
    messages = [
        user("Where are ORD-1 and ORD-2?"),
        assistant([say("Let me look."), use("toolu_1"), use("toolu_2")]),
        user([result("toolu_2"), result("toolu_1", is_error=True), say("Quickly, please")]),
        assistant("Both are on their way."),
        user("Thanks!"),
        user("Bye"),
    ]

    message = await create(client, messages=messages)

    assert message.role == "assistant"


# 13 and 14: tools and settings

CLOSED = GET_ORDER["input_schema"]
INVALID_TOOLS = {
    "a name with a blank": [{**GET_ORDER, "name": "get order"}],
    "a name of 129 letters": [{**GET_ORDER, "name": "a" * 129}],
    "two of one name": [GET_ORDER, GET_ORDER],
    "an array schema": [{**ESCALATE, "input_schema": {"type": "array"}}],
    "no schema": [{"name": "get_order"}],
    "an unknown key": [{**ESCALATE, "parameters": {}}],
    "strict and open": [{**ESCALATE, "strict": True}],
    "strict without required": [
        {
            "name": "get_order",
            "strict": True,
            "input_schema": {"type": "object", "additionalProperties": False},
        }
    ],
}


@pytest.mark.parametrize("tools", INVALID_TOOLS.values(), ids=INVALID_TOOLS.keys())
async def test_an_invalid_tool_is_refused(client: AsyncAnthropic, tools: Any) -> None:
    refusal = await refusal_of(client, tools=tools)

    assert isinstance(refusal, anthropic.BadRequestError)
    assert "tools" in str(refusal)


INVALID_CHOICES = {
    "without tools": {"tool_choice": {"type": "auto"}},
    "of an unknown tool": {"tool_choice": {"type": "tool", "name": "x"}, "tools": [GET_ORDER]},
    "of an unknown type": {"tool_choice": {"type": "must"}, "tools": [GET_ORDER]},
    "forced on 5.5": {
        "tool_choice": {"type": "any"},
        "tools": [GET_ORDER],
        "model": SONNET_5_5,
    },
}


@pytest.mark.parametrize("changes", INVALID_CHOICES.values(), ids=INVALID_CHOICES.keys())
async def test_an_invalid_tool_choice_is_refused(client: AsyncAnthropic, changes: Any) -> None:
    refusal = await refusal_of(client, **changes)

    assert "tool_choice" in str(refusal)


async def test_effort_is_refused_on_haiku_4_5(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, model=HAIKU, output_config={"effort": "low"})

    assert "effort" in str(refusal)


async def test_effort_passes_on_sonnet(client: AsyncAnthropic) -> None:
    message = await create(client, output_config={"effort": "low"})

    assert message.model == SONNET


async def test_an_unknown_effort_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, output_config={"effort": "heroic"})

    assert "effort" in str(refusal)


@pytest.mark.parametrize(
    ("model", "thinking"), [(HAIKU, {"type": "adaptive"}), (SONNET_5_5, {"type": "disabled"})]
)
async def test_thinking_that_the_model_lacks_is_refused(
    client: AsyncAnthropic, model: str, thinking: Any
) -> None:
    refusal = await refusal_of(client, model=model, thinking=thinking)

    assert "thinking" in str(refusal)


async def test_an_empty_system_block_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, system=[say("")])

    assert "non-empty" in str(refusal)


# 15 and 16: the prompt cache


def long_text(tokens: int, *, salt: str = SALT) -> str:
    return (salt * (tokens * 4 // len(salt) + 1))[: tokens * 4]


async def test_a_fifth_cache_breakpoint_is_refused(client: AsyncAnthropic) -> None:
    blocks = [say(f"Part {number}", cache_control=CACHED) for number in range(4)]

    refusal = await refusal_of(client, messages=[user(blocks), user("Hello")], cache_control=CACHED)

    assert "A maximum of 4 blocks with cache_control may be provided. Found 5." in str(refusal)


async def test_a_long_lived_breakpoint_after_a_short_lived_one_is_refused(
    client: AsyncAnthropic,
) -> None:
    refusal = await refusal_of(
        client,
        system=[say("Be brief", cache_control=CACHED)],
        messages=[user([say("Hello", cache_control=CACHED_1H)])],
    )

    assert "must not come after" in str(refusal)


async def test_an_unknown_lifetime_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, cache_control={"type": "ephemeral", "ttl": "2h"})

    assert "ttl" in str(refusal)


async def test_a_breakpoint_on_thinking_is_refused(client: AsyncAnthropic) -> None:
    thinking = {"type": "thinking", "thinking": "…", "signature": "s", "cache_control": CACHED}

    refusal = await refusal_of(
        client, messages=[user("Hi"), assistant([thinking, say("Yes?")]), user("Hello")]
    )

    assert "cache_control" in str(refusal)


async def test_a_repeated_prefix_is_read_from_the_cache(client: AsyncAnthropic) -> None:
    system = [say(long_text(2_000), cache_control=CACHED)]

    first = await create(client, system=system)
    second = await create(client, system=system, messages=[user("Another question")])

    assert first.usage.cache_creation_input_tokens == second.usage.cache_read_input_tokens
    assert (second.usage.cache_read_input_tokens or 0) > 2_000
    assert second.usage.cache_creation_input_tokens == 0
    assert second.usage.input_tokens < 20


async def test_the_breakpoint_covers_the_tools_before_it(client: AsyncAnthropic) -> None:
    system = [say(long_text(2_000), cache_control=CACHED)]

    await create(client, system=system, tools=[GET_ORDER])
    other_tools = await create(client, system=system, tools=[ESCALATE])

    assert other_tools.usage.cache_read_input_tokens == 0


@pytest.mark.parametrize(("control", "lifetime_s"), [(CACHED, 300), (CACHED_1H, 3_600)])
async def test_a_prefix_lives_from_its_last_use(
    client: AsyncAnthropic, clock: Clock, control: Any, lifetime_s: int
) -> None:
    system = [say(long_text(2_000), cache_control=control)]
    await create(client, system=system)

    clock.now += lifetime_s - 1
    refreshed = await create(client, system=system)
    clock.now += lifetime_s - 1
    alive = await create(client, system=system)
    clock.now += lifetime_s
    dead = await create(client, system=system)

    reads = [message.usage.cache_read_input_tokens for message in (refreshed, alive, dead)]
    assert reads[0] == reads[1]
    assert reads[2] == 0


async def test_each_lifetime_is_charged_by_itself(client: AsyncAnthropic) -> None:
    message = await create(
        client,
        system=[say(long_text(2_000), cache_control=CACHED_1H)],
        messages=[user([say(long_text(500), cache_control=CACHED)]), user("Hello")],
    )

    created = message.usage.cache_creation
    assert created is not None
    assert created.ephemeral_1h_input_tokens > 2_000
    assert 500 < created.ephemeral_5m_input_tokens < 550
    assert message.usage.input_tokens < 20


@pytest.mark.parametrize(("model", "cached"), [(HAIKU, 0), (SONNET, 3_000)])
async def test_a_prefix_below_the_models_minimum_is_not_cached(
    client: AsyncAnthropic, model: str, cached: int
) -> None:
    system = [say(long_text(3_000), cache_control=CACHED)]

    message = await create(client, model=model, system=system)

    assert (message.usage.cache_creation_input_tokens or 0) // 1_000 == cached // 1_000


async def test_the_cache_of_one_model_is_not_anothers(client: AsyncAnthropic) -> None:
    system = [say(long_text(5_000), cache_control=CACHED)]

    await create(client, system=system)
    other = await create(client, system=system, model="claude-opus-4-6")

    assert other.usage.cache_read_input_tokens == 0


async def test_the_automatic_breakpoint_moves_with_the_conversation(
    client: AsyncAnthropic,
) -> None:
    history = [user(long_text(2_000))]

    first = await create(client, messages=history, cache_control=CACHED)
    longer = [*history, assistant("Yes."), user("And now?")]
    second = await create(client, messages=longer, cache_control=CACHED)

    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens
    assert 0 < (second.usage.cache_creation_input_tokens or 0) < 50
    assert second.usage.input_tokens == 0


@pytest.mark.parametrize(("added", "is_read"), [(19, True), (20, False)])
async def test_a_breakpoint_looks_back_20_blocks(
    client: AsyncAnthropic, added: int, is_read: bool
) -> None:
    history = [user(long_text(2_000))]
    await create(client, messages=history, cache_control=CACHED)

    longer = [*history, *(user(f"Line {number}") for number in range(added))]
    message = await create(client, messages=longer, cache_control=CACHED)

    assert bool(message.usage.cache_read_input_tokens) is is_read


async def test_a_changed_effort_leaves_only_the_system_cached(client: AsyncAnthropic) -> None:
    prompt: dict[str, Any] = {
        "system": [say(long_text(2_000), cache_control=CACHED)],
        "messages": [user([say(long_text(2_000), cache_control=CACHED)])],
    }

    await create(client, **prompt, output_config={"effort": "low"})
    changed = await create(client, **prompt, output_config={"effort": "high"})

    assert 2_000 < (changed.usage.cache_read_input_tokens or 0) < 2_100
    assert 2_000 < (changed.usage.cache_creation_input_tokens or 0) < 2_100


# 17 and 18: sizes, error envelopes, the other endpoints


async def test_a_prompt_beyond_the_context_is_refused(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, model=HAIKU, messages=[user(long_text(200_001))])

    assert "prompt is too long" in str(refusal)


async def test_a_body_over_32_mb_is_refused(claude: LocalClaude) -> None:
    async with open_client(claude) as client:
        with pytest.raises(anthropic.RequestTooLargeError) as caught:
            await create(client, messages=[user("a" * 33 * 1024 * 1024)])

    assert caught.value.status_code == 413


async def test_errors_and_answers_carry_a_request_id(client: AsyncAnthropic) -> None:
    refusal = await refusal_of(client, messages=[])
    message = await create(client)
    async with client.messages.stream(**build_request()) as events:
        streamed = await events.get_final_message()

    assert isinstance(refusal.body, dict)
    assert refusal.body["type"] == "error"
    assert refusal.body["request_id"] == refusal.request_id
    assert message._request_id
    assert events.request_id
    assert streamed.id != message.id


async def test_a_base_url_with_v1_is_not_found(claude: LocalClaude) -> None:
    async with AsyncAnthropic(base_url=f"{claude.url}/v1", api_key=claude.api_key) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await create(client)

    assert caught.value.request_id


async def test_counted_tokens_are_those_of_the_usage(client: AsyncAnthropic) -> None:
    prompt: dict[str, Any] = {"model": SONNET, "messages": [user("Hello")], "tools": [GET_ORDER]}

    counted = await client.messages.count_tokens(**prompt)
    message = await create(client, **prompt)

    assert counted.input_tokens == message.usage.input_tokens


async def test_a_count_is_refused_like_a_message(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.BadRequestError):
        await client.messages.count_tokens(model=SONNET, messages=[assistant("Hi")])  # type: ignore[list-item] # built as a plain dict


async def test_models_are_listed_with_their_limits(client: AsyncAnthropic) -> None:
    listed = [model.id async for model in client.models.list()]
    haiku = await client.models.retrieve("claude-haiku-4-5")

    assert HAIKU in listed
    assert (haiku.id, haiku.max_tokens, haiku.max_input_tokens) == (HAIKU, 64_000, 200_000)


async def test_an_unknown_model_cannot_be_retrieved(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-sonnet-9")


# 19: streams


async def test_a_stream_has_the_events_of_the_api(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(Reply((TextBlock("Let me"), ToolUseBlock("get_order", {"order_id": "ORD-1"}))))

    events: list[RawMessageStreamEvent] = []
    async with await client.messages.create(**build_request(), stream=True) as raw:
        events.extend([event async for event in raw])

    deltas = ["content_block_delta"]
    block = ["content_block_start", *deltas * 2, "content_block_stop"]
    tool = ["content_block_start", *deltas * 6, "content_block_stop"]
    kinds = [event.type for event in events]
    assert kinds == ["message_start", *block, *tool, "message_delta", "message_stop"]


async def test_a_streamed_message_is_the_whole_reply(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    words = "Grüße, „Sunset“ — 🌊\n\n```\ncode\n```" * 200
    reply = Reply((TextBlock(words), ToolUseBlock("get_order", {"order_id": "ORD-1", "n": None})))
    claude.script(reply, reply)

    streamed = await stream(client, max_tokens=4_096)
    whole = await create(client, max_tokens=4_096)

    assert say_of(streamed) == say_of(whole) == words
    assert calls_of(streamed) == [("get_order", {"order_id": "ORD-1", "n": None})]
    assert calls_of(streamed) == calls_of(whole)
    assert streamed.stop_reason == whole.stop_reason == "tool_use"
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.content[1].to_dict()["id"] != whole.content[1].to_dict()["id"]


async def test_a_reply_is_cut_at_max_tokens(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.script(text("a" * 100), text("a" * 100))

    streamed = await stream(client, max_tokens=5)
    whole = await create(client, max_tokens=5)

    for message in (streamed, whole):
        assert say_of(message) == "a" * 20
        assert message.stop_reason == "max_tokens"
        assert message.usage.output_tokens == 5


async def test_a_tool_use_is_cut_at_max_tokens(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.script(tool_call("get_order", order_id="ORD-1001"))

    async with await client.messages.create(**build_request(max_tokens=2), stream=True) as raw:
        events = [event async for event in raw]

    pieces = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(getattr(piece, "partial_json", "") for piece in pieces) == '{"order_'
    assert [e.delta.stop_reason for e in events if e.type == "message_delta"] == ["max_tokens"]


async def test_max_tokens_0_only_warms_the_cache(client: AsyncAnthropic) -> None:
    system = [say(long_text(2_000), cache_control=CACHED)]

    warming = await create(client, system=system, max_tokens=0)
    warmed = await create(client, system=system)

    assert warming.content == []
    assert (warmed.usage.cache_read_input_tokens or 0) > 2_000


async def test_an_empty_end_turn_can_be_scripted(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(Reply(()))

    message = await stream(client)

    assert message.content == []
    assert message.stop_reason == "end_turn"


async def test_a_refusal_can_be_scripted(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.script(Reply((TextBlock("I"),), stop_reason="refusal"))

    message = await stream(client)

    assert message.stop_reason == "refusal"
    assert message.stop_details is not None


async def test_tokens_come_at_the_pace_asked_for() -> None:
    async with (
        open_local_claude(first_token_s=0.05, tokens_per_s=200) as claude,
        open_client(claude) as client,
    ):
        claude.script(text("a" * 80))
        started = time.monotonic()
        async with client.messages.stream(**build_request()) as events:
            came_at = [time.monotonic() - started async for _ in events.text_stream]

    assert len(came_at) == 20
    assert came_at[0] >= 0.05
    assert came_at[-1] >= 0.05 + 19 / 200


# Faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (HttpError(429, "rate_limit_error"), anthropic.RateLimitError),
        (HttpError(529, "overloaded_error"), anthropic.InternalServerError),
        (HttpError(402, "billing_error"), anthropic.APIStatusError),
    ],
)
async def test_an_http_error_reaches_the_client(
    claude: LocalClaude, client: AsyncAnthropic, fault: HttpError, error: type[Exception]
) -> None:
    claude.add(fault)

    with pytest.raises(error) as caught:
        await stream(client)

    assert getattr(caught.value, "type", None) == fault.type
    assert claude.requests[0].error == f"{fault.type}: {fault.type}"


async def test_the_sdk_retries_as_the_headers_say(claude: LocalClaude) -> None:
    claude.add(HttpError(529, "overloaded_error", retry_after_ms=1, times=2))
    claude.script(text("At last"))
    async with open_client(claude, max_retries=4) as client:
        message = await stream(client)

    assert say_of(message) == "At last"
    assert len(claude.requests) == 3


async def test_should_retry_false_ends_the_retries(claude: LocalClaude) -> None:
    claude.add(HttpError(429, "rate_limit_error", retry_after_s=99, should_retry=False))
    async with open_client(claude, max_retries=4) as client:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await stream(client)

    assert caught.value.response.headers["retry-after"] == "99"
    assert len(claude.requests) == 1


async def test_a_fault_meets_only_the_requests_it_is_for(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.add(HttpError(500, "api_error", where=lambda body: body["model"] == HAIKU))

    spared = await create(client)
    refusal = await refusal_of(client, model=HAIKU)
    again = await create(client, model=HAIKU)

    assert spared.stop_reason == again.stop_reason == "end_turn"
    assert refusal.status_code == 500


async def test_cleared_faults_do_not_strike(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.add(HttpError(500, "api_error", times=9))

    claude.clear()

    assert (await create(client)).stop_reason == "end_turn"


async def read_until_it_breaks(
    client: AsyncAnthropic, error: type[Exception]
) -> tuple[str, Exception]:
    said: list[str] = []

    async def read() -> None:
        async with client.messages.stream(**build_request()) as events:
            async for delta in events.text_stream:
                said.append(delta)  # noqa: PERF401 - what came before the break counts

    with pytest.raises(error) as caught:
        await read()
    return "".join(said), caught.value


async def test_a_stream_error_comes_under_status_200(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(text("a" * 40))
    claude.add(StreamError("overloaded_error", after_deltas=3))

    said, error = await read_until_it_breaks(client, anthropic.APIStatusError)
    retried = await stream(client)

    assert isinstance(error, anthropic.APIStatusError)
    assert (error.status_code, error.type) == (200, "overloaded_error")
    assert said == "a" * 12
    assert say_of(retried) == "a" * 40


async def test_a_stream_error_is_an_http_error_where_nothing_streams(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.add(StreamError("overloaded_error"))

    refusal = await refusal_of(client)

    assert refusal.status_code == 529


async def test_a_connection_drops_in_mid_stream(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(text("a" * 40))
    claude.add(ConnectionDropped(after_deltas=3))

    said, _ = await read_until_it_breaks(client, httpx2.TransportError)

    assert said == "a" * 12
    assert claude.requests[0].error == "ConnectionDropped"


@pytest.mark.parametrize("send", [stream, create])
async def test_a_connection_drops_before_the_headers(
    claude: LocalClaude, client: AsyncAnthropic, send: Callable[[AsyncAnthropic], Any]
) -> None:
    claude.add(ConnectionDropped())

    with pytest.raises(anthropic.APIConnectionError):
        await send(client)


async def test_a_stream_can_end_without_its_stop(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(text("a" * 40))
    claude.add(EndsWithoutStop(after_deltas=3))

    message = await stream(client)

    assert message.stop_reason is None
    assert say_of(message) == "a" * 12


async def test_a_fault_beyond_the_last_delta_strikes_before_the_stop(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.script(text("aaaa"))
    claude.add(EndsWithoutStop(after_deltas=99))

    message = await stream(client)

    assert message.stop_reason is None
    assert say_of(message) == "aaaa"


async def test_a_gateway_can_answer_with_a_page(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    claude.add(HtmlPage())
    claude.add(HtmlPage(status=502))

    page = await client.messages.create(**build_request())
    refusal = await refusal_of(client)

    assert "<html>" in str(page)
    assert refusal.status_code == 502


async def test_a_stalled_stream_goes_on_when_released(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    fault = Stalled(after_deltas=2)
    claude.script(text("a" * 40))
    claude.add(fault)

    async with client.messages.stream(**build_request()) as events:
        said = [await anext(aiter(events.text_stream)) for _ in range(2)]
        await fault.reached.wait()
        fault.release.set()
        message = await events.get_final_message()

    assert said == ["aaaa", "aaaa"]
    assert say_of(message) == "a" * 40


async def test_an_answer_that_is_not_streamed_stalls_too(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    fault = Stalled()
    claude.add(fault)

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(create(client), name="asking")
        await fault.reached.wait()
        was_done = asking.done()
        fault.release.set()

    assert not was_done
    assert asking.result().stop_reason == "end_turn"


async def test_a_client_that_hangs_up_is_noticed(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    fault = Stalled(after_deltas=2)
    claude.add(fault)

    async with client.messages.stream(**build_request()):
        await fault.reached.wait()
    request = await claude.wait_for_request(lambda request: request.aborted)

    assert request.finished_at is not None
    assert request.usage is None


async def test_a_stalled_stream_does_not_keep_the_server_open() -> None:
    fault = Stalled()

    async with asyncio.TaskGroup() as tasks, open_local_claude() as claude:
        claude.add(fault)
        reading = tasks.create_task(read_until_cut_off(claude), name="reader")
        await fault.reached.wait()

    assert isinstance(reading.result(), httpx2.TransportError)


async def read_until_cut_off(claude: LocalClaude) -> Exception:
    async with open_client(claude) as client:
        _, error = await read_until_it_breaks(client, httpx2.TransportError)
    return error


async def test_one_request_can_be_slow(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.add(Slow(first_token_s=0.05))

    await stream(client)

    slow = claude.requests[0]
    assert (slow.finished_at or 0) - slow.arrived_at >= 0.05


async def test_tool_json_can_be_invalid(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.script(tool_call("get_order", order_id="ORD-1"))
    claude.add(InvalidToolJson())

    with pytest.raises(ValueError, match="JSON"):
        await stream(client)


async def test_unknown_events_do_no_harm(claude: LocalClaude, client: AsyncAnthropic) -> None:
    claude.script(Reply((TextBlock("Let me look."), ToolUseBlock("get_order", {"order_id": "O"}))))
    claude.add(UnknownEvents())

    message = await stream(client)

    assert [str(block.type) for block in message.content] == ["hologram", "text", "tool_use"]
    assert say_of(message) == "Let me look."
    assert calls_of(message) == [("get_order", {"order_id": "O"})]


async def test_a_request_is_recorded_with_its_usage(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    message = await stream(client)
    request = await claude.wait_for_request(lambda request: request.finished_at is not None)

    assert request.body["messages"] == [user("Hello")]
    assert request.headers["anthropic-version"] == "2026-10-21"
    assert request.usage is not None
    assert request.usage["output_tokens"] == message.usage.output_tokens
    assert not request.aborted
    assert request.error is None


async def test_a_test_can_wait_for_the_second_request(
    claude: LocalClaude, client: AsyncAnthropic
) -> None:
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(claude.wait_for_request(2), name="second")
        both = tasks.create_task(claude.wait_until(lambda: len(claude.requests) == 2), name="both")
        await create(client)
        await create(client, messages=[user("Second")])

    assert waiting.result().body["messages"] == [user("Second")]
    assert both.done()


# What the stand-in says


def found(**order: Any) -> str:
    return str(order).replace("'", '"').replace("None", "null")


async def test_it_looks_up_every_id_once(client: AsyncAnthropic) -> None:
    message = await create(
        client,
        messages=[user("Ann: where are ord-1001, TEE-20202 and ORD-1001?")],
        tools=[ESCALATE, GET_ORDER],
    )

    orders = [{"order_id": "ord-1001"}, {"order_id": "TEE-20202"}]
    assert calls_of(message) == [("get_order", order) for order in orders]
    assert message.stop_reason == "tool_use"


async def test_it_looks_up_the_id_mentioned_before(client: AsyncAnthropic) -> None:
    history = [user("Hello, it is about ORD-7777"), assistant("Hello! How can I help?")]

    message = await create(
        client, messages=[*history, user("Has it been shipped?")], tools=[GET_ORDER]
    )

    assert calls_of(message) == [("get_order", {"order_id": "ORD-7777"})]


@pytest.mark.parametrize(
    "words",
    [
        "Earlier in this thread:\nAnn: ORD-1002 is late\n\nBob: and ORD-1001?",
        "[Earlier]\nAnn: ORD-1002\n\nAnn: ORD-1003\n\n[New messages]\nBob: and ORD-1001?",
        "<context>\nAnn: ORD-1002 is late\n</context>\nBob: and ORD-1001?",
    ],
)
async def test_it_leaves_ids_of_the_context_alone(client: AsyncAnthropic, words: str) -> None:
    message = await create(client, messages=[user(words)], tools=[GET_ORDER])

    assert calls_of(message) == [("get_order", {"order_id": "ORD-1001"})]


async def test_it_calls_no_tool_that_is_not_offered(client: AsyncAnthropic) -> None:
    words = await ask(client, user("Where is ORD-1001? I want a refund!"))

    assert "hello@threadco.com" in words


async def test_it_calls_no_tool_when_told_none(client: AsyncAnthropic) -> None:
    message = await create(
        client,
        messages=[user("Where is ORD-1001?")],
        tools=[GET_ORDER],
        tool_choice={"type": "none"},
    )

    assert message.stop_reason == "end_turn"


async def test_it_calls_one_tool_at_a_time_when_told_so(client: AsyncAnthropic) -> None:
    message = await create(
        client,
        messages=[user("Where are ORD-1001 and ORD-1002?")],
        tools=[GET_ORDER],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
    )

    assert calls_of(message) == [("get_order", {"order_id": "ORD-1001"})]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("42", "42"),
        ('{"rows_written": 3}', "rows written: 3"),
        ('{"status": "lost", "item": "Tee"}', "is lost"),
        (
            '{"status": "lost", "item": "Tee", "tracking_number": "RM1"}',
            "Its tracking number is RM1.",
        ),
    ],
)
async def test_it_tells_any_result(client: AsyncAnthropic, content: str, told: str) -> None:
    words = await ask(client, user("ORD-1?"), assistant([use()]), user([result(content=content)]))

    assert told in words


async def test_it_tells_what_the_tools_found_in_order(client: AsyncAnthropic) -> None:
    link = "https://track.example.com/tracking/RM1"
    shipped = found(
        order_id="ORD-1", status="shipped", item="Tee (M)", estimated_delivery="2 Apr",
        track_url=link,
    )  # fmt: skip
    words = await ask(
        client,
        user("Where are ORD-2 and ORD-1?"),
        assistant([use("toolu_2", order_id="ORD-2"), use("toolu_1", order_id="ORD-1")]),
        user([result("toolu_2", "No such order.", is_error=True), result("toolu_1", shipped)]),
    )

    assert words.startswith("No such order.")
    assert "ORD-1, Tee (M), has been shipped" in words
    assert "2 Apr" in words
    assert words.endswith(link)


async def test_it_tells_results_given_as_blocks(client: AsyncAnthropic) -> None:
    order = found(order_id="ORD-1", status="processing", item="Crop Tee", track_url=None)

    words = await ask(
        client, user("ORD-1?"), assistant([use()]), user([result(content=[say(order)])])
    )

    assert words == "Your order ORD-1, Crop Tee, is being prepared."


async def test_it_fetches_a_person_and_says_what_came_of_it(client: AsyncAnthropic) -> None:
    asked = user("I want to talk to a human about my T-shirt")

    message = await create(client, messages=[asked], tools=[GET_ORDER, ESCALATE])
    told = await ask(
        client,
        asked,
        assistant([use()]),
        user([result(content='{"message": "A colleague will write to you."}')]),
    )

    assert calls_of(message) == [("escalate", {"summary": asked["content"]})]
    assert told == "A colleague will write to you."


async def test_it_remembers_what_was_said(client: AsyncAnthropic) -> None:
    words = await ask(
        client,
        user("My size is M"),
        assistant("Noted."),
        user("And I like blue"),
        assistant("Noted."),
        user("What did I say before?"),
    )

    assert words.index("My size is M") < words.index("And I like blue")
    assert "What did I say" not in words


@pytest.mark.parametrize("ask_for", ["repeat: ", "Ann: please say exactly: "])
async def test_it_repeats_verbatim(client: AsyncAnthropic, ask_for: str) -> None:
    hostile = "<!channel> [x](http://evil) `ORD-1001`\n\n```open"

    words = await ask(client, user(ask_for + hostile), tools=[GET_ORDER])

    assert words == hostile


async def test_it_writes_as_many_words_as_asked_for(client: AsyncAnthropic) -> None:
    words = await ask(client, user("Please write about 1,234 words"), max_tokens=8_000)

    assert len(words.split()) == 1_234
    assert words.count("\n\n") == 20


async def test_it_counts(client: AsyncAnthropic) -> None:
    assert await ask(client, user("Count to 5")) == "1, 2, 3, 4, 5"


@pytest.mark.parametrize(
    ("words", "answered"),
    [
        ("Hi there", "Hello!"),
        ("Thanks, that's it", "welcome"),
        ("Where is my order?", "order number"),
        ("What is the capital of France?", "hello@threadco.com"),
    ],
)
async def test_it_makes_small_talk(client: AsyncAnthropic, words: str, answered: str) -> None:
    assert answered in await ask(client, user(words), tools=[GET_ORDER])


async def test_the_mind_can_be_replaced() -> None:
    seen: list[Any] = []

    def echo(body: Any) -> Reply:
        seen.append(body)
        return answer({"messages": [user("repeat: moo")]})

    async with open_local_claude(mind=echo) as claude, open_client(claude) as client:
        message = await create(client)

    assert say_of(message) == "moo"
    assert seen[0]["model"] == SONNET

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from anthropic.types import Usage

from slackbot.claude.client import Claude, Step, StepRequest, open_claude
from slackbot.claude.models import find_model
from slackbot.claude.usage import measure_usage
from slackbot.errors import (
    ClaudeBusyError,
    ClaudeError,
    ClaudeInterruptedError,
    ClaudeMisconfiguredError,
    ClaudeRejectedError,
    ClaudeTooLongError,
    ClaudeUnreachableError,
)
from slackbot.playground.claude_faults import (
    ConnectionDropped,
    EndsWithoutStop,
    Fault,
    HtmlPage,
    HttpError,
    InvalidToolJson,
    Stalled,
    StreamError,
    UnknownEvents,
)
from slackbot.playground.claude_mind import Reply, TextBlock, text, tool_call
from slackbot.playground.claude_server import LocalClaude

SONNET, HAIKU = "claude-sonnet-4-6", "claude-haiku-4-5-20251001"
GET_ORDER = {
    "name": "get_order",
    "description": "Looks an order up.",
    "input_schema": {
        "type": "object",
        "properties": {"order_id": {"type": "string"}},
        "required": ["order_id"],
    },
}
REQUEST = StepRequest(
    model=SONNET,
    effort="low",
    max_tokens=100,
    system=[{"type": "text", "text": "You are brief."}],
    tools=[],
    messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
)


@pytest.fixture
async def client(claude: LocalClaude) -> AsyncIterator[Claude]:
    async with open_claude(
        api_key=claude.api_key, base_url=claude.url, retry_after_cap_s=0.01, read_timeout_s=0.3
    ) as client:
        yield client


async def stream(client: Claude, request: StepRequest = REQUEST) -> list[str | Step]:
    return [piece async for piece in client.stream_step(request)]


async def fail(client: Claude, request: StepRequest = REQUEST) -> tuple[ClaudeError, list[str]]:
    """How a step fails, and what was said before."""
    said: list[str] = []

    async def listen() -> None:
        async for piece in client.stream_step(request):
            said.append(str(piece))  # noqa: PERF401 - kept although the stream breaks

    with pytest.raises(ClaudeError) as caught:
        await listen()
    return caught.value, said


async def test_the_text_comes_in_pieces_and_then_the_whole_step(
    claude: LocalClaude, client: Claude
) -> None:
    claude.script(Reply((TextBlock("One, two, three."), *tool_call("get_order", a=1).blocks)))

    *pieces, step = await stream(client)

    assert isinstance(step, Step)
    assert len(pieces) > 1
    assert "".join(map(str, pieces)) == step.text == "One, two, three."
    assert [use["name"] for use in step.tool_uses] == ["get_order"]
    assert step.stop_reason == "tool_use"
    assert step.request_id


@pytest.mark.parametrize(
    ("status", "kind", "expected", "requests"),
    [
        (400, "invalid_request_error", ClaudeRejectedError, 1),
        (401, "authentication_error", ClaudeMisconfiguredError, 1),
        (402, "billing_error", ClaudeMisconfiguredError, 1),
        (403, "permission_error", ClaudeMisconfiguredError, 1),
        (404, "not_found_error", ClaudeMisconfiguredError, 1),
        (408, "timeout_error", ClaudeUnreachableError, 5),
        (409, "conflict_error", ClaudeUnreachableError, 5),
        (413, "request_too_large", ClaudeTooLongError, 1),
        (422, "invalid_request_error", ClaudeRejectedError, 1),
        (429, "rate_limit_error", ClaudeBusyError, 5),
        (500, "api_error", ClaudeUnreachableError, 5),
        (503, "api_error", ClaudeUnreachableError, 5),
        (504, "timeout_error", ClaudeUnreachableError, 5),
        (529, "overloaded_error", ClaudeBusyError, 5),
    ],
)
async def test_each_status_has_its_meaning_after_the_retries_it_is_worth(
    claude: LocalClaude,
    client: Claude,
    status: int,
    kind: str,
    expected: type[ClaudeError],
    requests: int,
) -> None:
    claude.add(HttpError(status, kind, retry_after_ms=1, times=100))

    error, said = await fail(client)

    assert type(error) is expected
    assert error.request_id
    assert str(status) in error.reason
    assert said == []
    assert len(claude.requests) == requests


@pytest.mark.parametrize(
    ("fault", "expected", "has_said"),
    [
        (StreamError("overloaded_error"), ClaudeInterruptedError, False),
        (StreamError("api_error", after_deltas=1), ClaudeInterruptedError, True),
        (ConnectionDropped(after_deltas=1), ClaudeInterruptedError, True),
        (EndsWithoutStop(after_deltas=1), ClaudeInterruptedError, True),
        (Stalled(after_deltas=1), ClaudeInterruptedError, True),
        (HtmlPage(), ClaudeRejectedError, False),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_stream_that_breaks_is_not_made_again_here(
    claude: LocalClaude, client: Claude, fault: Fault, expected: type[ClaudeError], has_said: bool
) -> None:
    claude.add(fault)

    error, said = await fail(client)

    assert type(error) is expected
    assert bool(said) is has_said
    assert len(claude.requests) == 1


async def test_tool_input_that_is_no_json_is_an_interruption(
    claude: LocalClaude, client: Claude
) -> None:
    claude.script(tool_call("get_order", order_id="ORD-1001"))
    claude.add(InvalidToolJson())

    error, _ = await fail(client, replace(REQUEST, tools=[GET_ORDER]))

    assert type(error) is ClaudeInterruptedError


async def test_a_connection_that_drops_before_the_answer_is_made_again(
    claude: LocalClaude, client: Claude
) -> None:
    claude.add(ConnectionDropped())

    step = (await stream(client))[-1]

    assert isinstance(step, Step)
    assert len(claude.requests) == 2


@pytest.mark.parametrize("header", [{"retry_after_s": 5_000.0}, {"retry_after_ms": 5_000_000}])
async def test_no_retry_waits_longer_than_the_cap(
    claude: LocalClaude, client: Claude, header: dict[str, Any]
) -> None:
    claude.add(HttpError(429, "rate_limit_error", times=2, **header))

    step = (await stream(client))[-1]

    assert isinstance(step, Step)
    assert len(claude.requests) == 3


async def test_blocks_that_the_api_would_refuse_are_not_part_of_a_step(
    claude: LocalClaude, client: Claude
) -> None:
    claude.script(Reply((TextBlock(" "), TextBlock("Hello."), TextBlock(""))))
    claude.add(UnknownEvents())

    step = (await stream(client))[-1]

    assert isinstance(step, Step)
    assert step.content == ({"type": "text", "text": "Hello."},)


@pytest.mark.parametrize(
    ("model", "config"), [(SONNET, {"effort": "low"}), (HAIKU, None), ("claude-haiku-4-5", None)]
)
async def test_only_models_that_know_effort_are_told_it(
    claude: LocalClaude, client: Claude, model: str, config: Any
) -> None:
    await stream(client, replace(REQUEST, model=model))

    assert claude.requests[0].body.get("output_config") == config


async def test_a_model_that_does_not_exist_is_the_operators_matter(client: Claude) -> None:
    await client.check_model(SONNET)
    with pytest.raises(ClaudeMisconfiguredError):
        await client.check_model("claude-of-tomorrow")


async def test_a_request_without_tools_says_nothing_of_tools(
    claude: LocalClaude, client: Claude
) -> None:
    await stream(client)
    await stream(client, replace(REQUEST, tools=[GET_ORDER]))

    assert "tools" not in claude.requests[0].body
    assert claude.requests[1].body["tools"] == [GET_ORDER]


async def test_the_usage_of_a_step_is_that_of_the_whole_stream(
    claude: LocalClaude, client: Claude
) -> None:
    claude.script(text("word " * 40))

    step = (await stream(client))[-1]

    assert isinstance(step, Step)
    charged = claude.requests[0].usage
    assert charged
    assert step.usage.output_tokens == charged["output_tokens"] == 50
    assert step.usage.input_tokens == charged["input_tokens"]


async def test_a_server_that_knows_no_cache_and_no_key_is_served_too() -> None:
    async def answer(_: web.Request) -> web.Response:
        events = (
            'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":'
            '"message","role":"assistant","model":"qwen","content":[],"stop_reason":null,'
            '"stop_sequence":null,"usage":{"input_tokens":7,"output_tokens":0}}}\n\n'
            'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
            '"content_block":{"type":"text","text":""}}\n\n'
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            '"delta":{"type":"text_delta","text":"Hi."}}\n\n'
            'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
            'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":'
            '"end_turn","stop_sequence":null},"usage":{"output_tokens":3}}\n\n'
            'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )
        return web.Response(text=events, content_type="text/event-stream")

    app = web.Application()
    app.router.add_post("/v1/messages", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with open_claude(api_key="", base_url=url) as client:
            step = (await stream(client, replace(REQUEST, model="qwen")))[-1]
    finally:
        await runner.cleanup()

    assert isinstance(step, Step)
    assert step.text == "Hi."
    assert step.usage.all_input_tokens == 7
    assert step.usage.output_tokens == 3
    assert step.usage.cost_usd == 0


@pytest.mark.parametrize(
    ("model", "usage", "cost_usd"),
    [
        (SONNET, {"input_tokens": 1_000_000, "output_tokens": 1_000_000}, 18.0),
        (SONNET, {"input_tokens": 0, "cache_read_input_tokens": 1_000_000}, 0.3),
        (SONNET, {"input_tokens": 0, "cache_creation_input_tokens": 1_000_000}, 3.75),
        (
            SONNET,
            {
                "input_tokens": 0,
                "cache_creation_input_tokens": 1_000_000,
                "cache_creation": {
                    "ephemeral_1h_input_tokens": 400_000,
                    "ephemeral_5m_input_tokens": 600_000,
                },
            },
            0.4 * 6 + 0.6 * 3.75,
        ),
        ("claude-sonnet-5-5", {"input_tokens": 0, "cache_read_input_tokens": 1_000_000}, 0.1),
        ("claude-haiku-4-5", {"input_tokens": 10, "output_tokens": 10}, 0.00006),
        ("qwen3", {"input_tokens": 1_000_000, "output_tokens": 1_000_000}, 0.0),
    ],
)
def test_a_request_costs_what_its_kinds_of_tokens_cost(
    model: str, usage: dict[str, Any], cost_usd: float
) -> None:
    measured = measure_usage(find_model(model), Usage(**{"output_tokens": 0, **usage}))

    assert measured.cost_usd == pytest.approx(cost_usd)
    assert measured.all_input_tokens == sum(
        value for name, value in usage.items() if name.endswith("input_tokens")
    )


def test_a_model_nobody_knows_costs_nothing_and_has_no_options() -> None:
    model = find_model("qwen3-coder")

    assert (model.input_price, model.output_price, model.has_effort) == (0, 0, False)

"""Fixtures for every test: the two local servers, instant and without limits unless asked."""

from collections.abc import AsyncIterator, Iterator

import httpcore2  # noqa: F401 - the client imports it when it is built, which reads files
import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from slackbot.playground.claude_server import LocalClaude, open_local_claude
from slackbot.playground.slack_limits import SlackLimits
from slackbot.playground.slack_server import LocalSlack, open_local_slack


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    # The local servers live in the same loop as the bot; what is banned is banned for all.
    with blockbuster_ctx("slackbot") as blockbuster:
        yield blockbuster


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with open_local_slack(limits=SlackLimits.none()) as server:
        yield server


@pytest.fixture
async def claude() -> AsyncIterator[LocalClaude]:
    async with open_local_claude() as server:
        yield server

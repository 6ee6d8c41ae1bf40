"""What a request cost."""

from anthropic.types import Usage

from slackbot.claude.models import MTOK, Model
from slackbot.domain.turns import StepUsage


def measure_usage(model: Model, usage: Usage) -> StepUsage:
    """The tokens and the price of one request; fields a server leaves out count as 0."""
    written = usage.cache_creation
    in_1h = (written.ephemeral_1h_input_tokens or 0) if written else 0
    in_5m = (usage.cache_creation_input_tokens or 0) - in_1h
    read = usage.cache_read_input_tokens or 0
    plain = usage.input_tokens or 0
    output = usage.output_tokens or 0
    input_units = (
        plain
        + in_5m * model.cache_write_5m_factor
        + in_1h * model.cache_write_1h_factor
        + read * model.cache_read_factor
    )
    return StepUsage(
        model=model.id,
        input_tokens=plain,
        cache_write_5m_tokens=in_5m,
        cache_write_1h_tokens=in_1h,
        cache_read_tokens=read,
        output_tokens=output,
        cost_usd=(input_units * model.input_price + output * model.output_price) / MTOK,
    )

"""What the models can do and what they cost (facts gathered November 2026, in US dollars)."""

from dataclasses import dataclass

MTOK = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model's abilities and prices; prices are US dollars per million tokens."""

    id: str
    input_price: float
    output_price: float
    has_effort: bool
    cache_read_factor: float = 0.1
    cache_write_5m_factor: float = 1.25
    cache_write_1h_factor: float = 2.0


_MODELS = (
    Model(
        id="claude-haiku-4-5-20251001",
        input_price=1,
        output_price=5,
        has_effort=False,
    ),
    Model(
        id="claude-sonnet-4-6",
        input_price=3,
        output_price=15,
        has_effort=True,
    ),
    Model(
        id="claude-opus-4-6",
        input_price=5,
        output_price=25,
        has_effort=True,
    ),
    Model(
        id="claude-haiku-5-5",
        input_price=0.1,
        output_price=0.5,
        has_effort=True,
    ),
    Model(
        id="claude-sonnet-5-5",
        input_price=2,
        output_price=10,
        has_effort=True,
        cache_read_factor=0.05,
    ),
    Model(
        id="claude-opus-5-5",
        input_price=4,
        output_price=20,
        has_effort=True,
        cache_read_factor=0.05,
    ),
)


def find_model(model_id: str) -> Model:
    """The model called `model_id`, also without its date.

    An id that is not in the table (a model of a local server, say) is taken to cost nothing and to
    know none of the options that only some models have.
    """
    for model in _MODELS:
        if model_id in {model.id, model.id.removesuffix("-20251001")}:
            return model
    return Model(id=model_id, input_price=0, output_price=0, has_effort=False)

import pytest

from slackbot.slack.pacer import BURST_CUT, MIN_RATE, RATE_CUT, RECOVERY_S, Budget

RATE = 1.0
BURST = 8.0


def build_budget(
    *, rate: float = RATE, burst: float = BURST, tokens: float = 0.0, at: float = 0.0
) -> Budget:
    return Budget(rate=rate, burst=burst, tokens=tokens, at=at)


def take_all(budget: Budget, now: float) -> int:
    """How many calls the budget grants at once."""
    budget.refill(now)
    granted = 0
    while budget.may_take(now):
        budget.tokens -= 1
        granted += 1
    return granted


def test_an_empty_budget_grants_nothing_until_one_call_has_come_in() -> None:
    budget = build_budget()

    granted = [take_all(budget, now) for now in (0.0, 0.5, 0.99, 1.0, 1.5, 2.0)]

    assert granted == [0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("now", [8.0, 9.0, 59.0, 1000.0])
def test_a_rested_budget_grants_its_burst_and_no_more(now: float) -> None:
    assert take_all(build_budget(), now) == BURST


def test_looking_often_gives_no_more_than_looking_once() -> None:
    often, once = build_budget(), build_budget()

    for tick in range(1, 31):
        often.refill(tick / 10)
    once.refill(3.0)

    assert often.tokens == pytest.approx(once.tokens)


def test_a_clock_that_goes_back_gives_nothing_twice() -> None:
    budget = build_budget(at=10.0)

    budget.refill(12.0)
    budget.refill(11.0)
    budget.refill(12.0)

    assert budget.tokens == pytest.approx(2.0)


@pytest.mark.parametrize(("tokens", "wait_s"), [(0.0, 2.0), (0.5, 1.0), (1.0, 0.0), (5.0, 0.0)])
def test_the_wait_ends_when_one_call_has_come_in(tokens: float, wait_s: float) -> None:
    budget = build_budget(rate=0.5, tokens=tokens)

    waiting = budget.wait_s(0.0)
    budget.refill(waiting)

    assert waiting == pytest.approx(wait_s)
    assert budget.may_take(waiting)


def test_a_refusal_halves_the_burst_and_cuts_the_rate_by_40_percent() -> None:
    budget = build_budget(tokens=5.0)

    budget.refuse(0.0, 10.0)

    assert (budget.rate, budget.burst, budget.tokens) == pytest.approx((0.6, 4.0, 0.0))


def test_the_burst_never_falls_below_one() -> None:
    budget = build_budget()

    for number in range(10):
        budget.refuse(number * 10.0, 1.0)

    assert budget.burst == 1.0


def test_several_refusals_during_one_hold_are_one_lesson() -> None:
    budget = build_budget()

    for now in (0.0, 0.1, 9.9):
        budget.refuse(now, 10.0)

    assert (budget.rate, budget.burst) == pytest.approx((0.6, 4.0))
    assert budget.held_until == pytest.approx(19.9)


def test_a_refusal_after_the_hold_is_another_lesson() -> None:
    budget = build_budget()

    budget.refuse(0.0, 10.0)
    budget.refuse(10.0, 10.0)

    assert (budget.rate, budget.burst) == pytest.approx((0.36, 2.0))


def test_a_shorter_hold_does_not_end_a_longer_one() -> None:
    budget = build_budget()

    budget.refuse(0.0, 30.0)
    budget.refuse(1.0, 2.0)

    assert budget.held_until == 30.0


@pytest.mark.parametrize("retry_after_s", [0.5, 1.0, 10.0, 45.0, 300.0])
def test_nothing_is_granted_while_held(retry_after_s: float) -> None:
    budget = build_budget(tokens=BURST)
    budget.refuse(0.0, retry_after_s)

    granted = [take_all(budget, retry_after_s * share) for share in (0.0, 0.2, 0.5, 0.9, 0.999)]

    assert granted == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("retry_after_s", [2.0, 10.0, 45.0])
def test_one_call_and_not_a_burst_is_granted_when_a_hold_ends(retry_after_s: float) -> None:
    budget = build_budget(tokens=BURST)
    budget.refuse(0.0, retry_after_s)

    assert budget.wait_s(0.0) == pytest.approx(retry_after_s)
    assert take_all(budget, retry_after_s + 0.001) == 1


def test_each_quiet_minute_gives_back_a_tenth_of_the_rate_and_one_of_the_burst() -> None:
    budget = build_budget()
    budget.refuse(0.0, 1.0)

    rates, bursts = [], []
    for minute in range(1, 4):
        budget.refill(1.0 + minute * 60.0 - 0.1)  # the hold was no quiet second
        budget.refill(1.0 + minute * 60.0)
        rates.append(budget.rate)
        bursts.append(budget.burst)

    assert rates == pytest.approx([0.7, 0.8, 0.9])
    assert bursts == [5.0, 6.0, 7.0]


def test_recovery_starts_anew_with_another_refusal() -> None:
    budget = build_budget()
    budget.refuse(0.0, 1.0)

    budget.refuse(59.0, 1.0)
    budget.refill(118.0)

    assert (budget.rate, budget.burst) == pytest.approx((0.36, 2.0))


def test_recovery_ends_at_the_full_rate_and_burst() -> None:
    budget = build_budget()
    budget.refuse(0.0, 1.0)

    for minute in range(1, 30):
        budget.refill(minute * 60.0)

    assert (budget.rate, budget.burst) == (RATE, BURST)


def test_a_budget_that_was_never_refused_stays_full() -> None:
    budget = build_budget()

    for minute in range(30):
        budget.refill(minute * 60.0)

    assert (budget.rate, budget.burst, budget.tokens) == (RATE, BURST, BURST)


def test_ten_quiet_minutes_bring_everything_back_also_when_nobody_asked_meanwhile() -> None:
    budget = Budget(rate=1.0, burst=8, tokens=8, at=0.0)
    budget.refuse(0.0, 1.0)

    budget.refill(1.0 + 10 * RECOVERY_S)

    assert (budget.rate, budget.burst) == (1.0, 8)


def test_time_on_hold_is_not_quiet_time() -> None:
    budget = Budget(rate=1.0, burst=8, tokens=8, at=0.0)
    budget.refuse(0.0, 5 * RECOVERY_S)

    budget.refill(5 * RECOVERY_S)

    assert (budget.rate, budget.burst) == (RATE_CUT, 8 * BURST_CUT)


def test_the_rate_never_falls_so_low_that_a_final_edit_waits_for_minutes() -> None:
    budget = Budget(rate=1.0, burst=8, tokens=8, at=0.0)

    for minute in range(50):
        budget.refuse(60.0 * minute, 1.0)

    assert budget.rate == MIN_RATE

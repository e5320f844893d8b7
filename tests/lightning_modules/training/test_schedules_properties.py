"""What holds for every schedule: no jumps where none belong, and a resume that goes on."""

import math
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tailmatch.lightning_modules.training.schedules import CosineAnnealing, CosineDecay, StepDecay, StepSchedule

lengths = st.integers(1, 60)
shares = st.floats(0.01, 0.99)


@st.composite
def step_decays(draw: Any) -> dict[str, Any]:
    """Draw the arguments of `StepDecay`."""
    milestones = tuple(sorted(draw(st.sets(shares, max_size=4))))
    factors = draw(st.one_of(st.none(), st.tuples(*[st.floats(0, 1)] * len(milestones))))
    warmup = draw(st.floats(0, 1)) * min(milestones, default=0.99)
    return {
        "milestones": milestones, "factors": factors, "warmup": warmup, "warmup_stairs": draw(st.integers(1, 9))
    }  # fmt: skip


schedules: Any = st.one_of(
    st.builds(lambda cycles: (CosineDecay, {"cycles": cycles}), st.floats(0, 0.5)),
    st.just((CosineAnnealing, {})),
    st.builds(lambda options: (StepDecay, options), step_decays()),
)


def made(kind: type[StepSchedule], options: dict[str, Any], steps: int, rate: float = 1.0) -> StepSchedule:
    return kind(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate), steps, **options)


def rates(schedule: StepSchedule, steps: int) -> list[float]:
    """The rates of the next steps, as the optimizer has them."""
    seen = []
    for _ in range(steps):
        seen.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return seen


@given(schedules, lengths, st.data())
def test_a_schedule_resumed_at_any_step_goes_on(kind: Any, steps: int, data: Any) -> None:
    done = data.draw(st.integers(0, steps))
    whole = rates(made(*kind, steps), steps + 3)
    first = made(*kind, steps)
    assert rates(first, done) == whole[:done]
    resumed = made(*kind, steps)
    resumed.load_state_dict(first.state_dict())
    assert rates(resumed, steps + 3 - done) == whole[done:]
    assert whole[steps:] == whole[steps:][:1] * 3  # beyond its end, a schedule keeps the last rate


@given(schedules, lengths, st.floats(1e-6, 10))
def test_rates_are_shares_of_the_base_rate(kind: Any, steps: int, rate: float) -> None:
    plain, scaled = (rates(made(*kind, steps, rate), steps) for rate in (1.0, rate))
    assert all(0 <= value <= 1 for value in plain)
    assert all(math.isclose(b, rate * a, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(plain, scaled, strict=True))


@given(lengths, st.floats(0, 0.5))
def test_cosines_fall_without_jumps(steps: int, cycles: float) -> None:
    for schedule in (made(CosineDecay, {"cycles": cycles}, steps), made(CosineAnnealing, {}, steps)):
        values = rates(schedule, steps + 1)
        falls = [before - after for before, after in zip(values, values[1:], strict=False)]
        assert values[0] == 1 and all(-1e-12 <= fall <= math.pi / 2 / steps + 1e-12 for fall in falls)


@given(lengths, step_decays())
def test_step_decay_climbs_in_stairs_then_has_its_factors(steps: int, options: dict[str, Any]) -> None:
    values = rates(made(StepDecay, options, steps), steps)
    stairs, milestones = options["warmup_stairs"], options["milestones"]
    factors = options["factors"] or [0.1 ** (k + 1) for k in range(len(milestones))]
    for step, value in enumerate(values):
        progress = step / steps
        if progress < options["warmup"]:
            assert math.isclose(value * stairs, round(value * stairs)) and 0 < value <= 1
            assert step == 0 or value >= values[step - 1]
        else:
            passed = sum(progress >= milestone for milestone in milestones)
            assert value == (factors[passed - 1] if passed else 1.0)

"""Every learning-rate scheduler of torch drives every optimizer that has a learning rate."""

import copy

import pytest
import torch
from torch.optim import lr_scheduler

from tests.cases import CASES, Case, assert_same, copy_values, drive, each_bounded_path, make_params

STEPS = 6


def cycles_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """The cyclic schedules drive `momentum` or `betas` as well, where a method has them."""
    return "momentum" in optimizer.defaults or "betas" in optimizer.defaults


def by_steps(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)


def by_line(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.LinearLR(optimizer, start_factor=0.2, total_iters=3)


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.8**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": by_steps,
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, factor=0.5, total_iters=2),
    "LinearLR": by_line,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(o, [by_line(o), by_steps(o)], milestones=[2]),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=STEPS),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([by_line(o), by_steps(o)]),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.02, step_size_up=2, cycle_momentum=cycles_momentum(o)),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=STEPS + 2, cycle_momentum=cycles_momentum(o)),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=STEPS),
}
each_scheduler = pytest.mark.parametrize("name", SCHEDULERS)


def advance(scheduler: lr_scheduler.LRScheduler) -> None:
    arguments = (1.0,) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else ()
    scheduler.step(*arguments)


def test_every_scheduler_is_tried():
    assert set(SCHEDULERS) == set(lr_scheduler.__all__) - {"LRScheduler"}


each_path_and_schedule = pytest.mark.parametrize(
    ("case", "name"),
    # One schedule with every method, and every schedule with one that has `momentum` and one that has `betas`.
    [(case, "OneCycleLR") for case in CASES if case.bounded and case.id not in ("sgdg", "adamsrt_decay")]
    + [(case, name) for case in CASES if case.id in ("sgdg", "adamsrt_decay") for name in SCHEDULERS],
    ids=str,
)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step", "ignore:Detected call of")
@each_path_and_schedule
def test_the_step_follows_the_schedule(case: Case, name: str):
    """The same steps as with the scheduled values set by hand."""
    params, expected = make_params(), make_params()
    optimizer, reference = case.make(params), case.make(expected)
    scheduler = SCHEDULERS[name](optimizer)
    rates = set()
    for number in range(STEPS):
        for group, scheduled in zip(reference.param_groups, optimizer.param_groups, strict=True):
            group.update({key: scheduled[key] for key in ("lr", "momentum", "betas") if key in scheduled})
        rates.add(optimizer.param_groups[0]["lr"])
        drive(case, optimizer, params, 1, start=number)
        drive(case, reference, expected, 1, start=number)
        advance(scheduler)
    assert len(rates) > 1
    assert_same(params, expected)
    assert all(torch.isfinite(p).all() for p in params)


@each_bounded_path
def test_schedule_and_optimizer_resume_together(case: Case):
    params, resumed_params = make_params(), make_params()
    optimizer, resumed = case.make(params), case.make(resumed_params)
    scheduler, resumed_scheduler = SCHEDULERS["OneCycleLR"](optimizer), SCHEDULERS["OneCycleLR"](resumed)
    for number in range(3):
        drive(case, optimizer, params, 1, start=number)
        scheduler.step()
    copy_values(params, resumed_params)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    for number in range(3, STEPS):
        for each, its_params, its_scheduler in (
            (optimizer, params, scheduler),
            (resumed, resumed_params, resumed_scheduler),
        ):
            drive(case, each, its_params, 1, start=number)
            its_scheduler.step()
    assert_same(resumed_params, params)


@each_bounded_path
def test_a_scheduler_changes_a_tensor_learning_rate_in_place(case: Case):
    params = make_params()
    optimizer = case.make(params)
    rates = [torch.tensor(group["lr"]) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler = by_steps(optimizer)
    before = [rate.item() for rate in rates]
    drive(case, optimizer, params, 1)
    scheduler.step()
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True))
    assert [rate.item() for rate in rates] == pytest.approx([0.7 * value for value in before])


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step", "ignore:Detected call of")
@each_scheduler
def test_an_unbounded_step_refuses_a_scheduler(name: str):
    (case,) = (case for case in CASES if not case.bounded)
    params = make_params()
    optimizer = case.make(params)
    with pytest.raises((ValueError, RuntimeError), match="unbounded"):
        scheduler = SCHEDULERS[name](optimizer)
        for number in range(STEPS):
            drive(case, optimizer, params, 1, start=number)
            advance(scheduler)

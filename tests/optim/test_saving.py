"""State dicts, files, copies and pickles continue bit for bit, with the settings."""

import copy
import io
import pickle

import pytest
import torch

from tests.cases import Case, assert_same, copy_values, drive, each_case, each_path, make_params


def through_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def through_pickle(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return pickle.loads(pickle.dumps(optimizer))


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


@each_case
@pytest.mark.parametrize(("way", "dtype"), [(copy.deepcopy, torch.float64), (through_file, torch.bfloat16)])
def test_continues_exactly_from_a_state_dict(case: Case, way, dtype: torch.dtype):
    params = make_params(dtype=dtype)
    optimizer = case.make(params)
    drive(case, optimizer, params, 3)
    resumed_params = make_params(dtype=dtype)
    resumed = case.make(resumed_params)
    resumed.load_state_dict(way(optimizer.state_dict()))
    copy_values(params, resumed_params)

    drive(case, optimizer, params, 4, start=3)
    drive(case, resumed, resumed_params, 4, start=3)
    assert_same(resumed_params, params)


@each_path
def test_state_saved_as_numbers_becomes_tensors(case: Case):
    """Older formats, and tools that convert checkpoints, hold steps and norms as Python numbers."""
    params = make_params()
    optimizer = case.make(params)
    drive(case, optimizer, params, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():
        state.update({key: value.item() for key, value in state.items() if value.ndim == 0})
    resumed_params = make_params()
    resumed = case.make(resumed_params)
    resumed.load_state_dict(saved)
    copy_values(params, resumed_params)
    drive(case, optimizer, params, 2, start=2)
    drive(case, resumed, resumed_params, 2, start=2)
    assert_same(resumed_params, params)
    for state, other in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert {key: value.dtype for key, value in state.items()} == {k: v.dtype for k, v in other.items()}


@each_path
def test_settings_are_saved(case: Case):
    optimizer = case.make(make_params())
    for group in optimizer.param_groups:
        functions = {name for name in case.method.arguments if name.endswith("_fn")}
        assert set(case.method.arguments) - functions <= set(group)
    others = case.method.cls([{"params": g["params"]} for g in case.groups(make_params())], lr=0.5)
    others.load_state_dict(through_file(optimizer.state_dict()))
    assert settings_of(others) == settings_of(optimizer)


@each_path
@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle])
def test_copies_continue_alike(case: Case, way):
    params = make_params()
    optimizer = case.make(params)
    drive(case, optimizer, params, 2)
    twin = way(optimizer)
    twin_params = [p for group in twin.param_groups for p in group["params"]]
    assert not {id(p) for p in twin_params} & {id(p) for p in params}

    drive(case, optimizer, params, 2, start=2)
    drive(case, twin, twin_params, 2, start=2)
    assert_same(twin_params, params)

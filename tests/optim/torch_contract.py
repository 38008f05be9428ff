"""What torch's `TestOptimRenewed` asks of torch's optimizers, asked of ours through the rows that drive it.

torch ships those rows (`OptimizerInfo`, `optims`), but not the class, so its laws stand here in words of our own, under
its names. Importing torch's test helpers fixes torch's global flags and hypothesis' profile, so test_torch_contract.py
runs this file in a process of its own.

Laws that other files hold in other words are not repeated. test_contract.py: groups with rates of their own, parameters
without gradients, tensor learning rates. test_saving.py: weights_only, numbers in saved state. test_alig.py: deep copies.
test_bad_input.py, test_tensors.py: bad rates, complex parameters, sparse gradients. Hooks and names in state dicts are
the base class's own.

What a method does not do by its rule:

- `foreach`, `fused`, `capturable`, `differentiable` and `maximize` are no arguments: there is one implementation, which
  batches by itself and reads nothing on the host. So test_foreach_*, test_fused_*, test_cpu_load_state_dict,
  test_can_load_older_state_dict, test_peak_memory_foreach, test_capturable_* and test_grad_scaling_* have nothing to compare.
- Complex parameters are refused, as lengths and spheres here are of real vectors, and so are sparse gradients, as a
  tensor's norm needs all of it: there is no test_complex* and no test_rosenbrock_sparse.
- Unbounded ALI-G refuses schedules, as it has no rate to schedule: its rows for schedulers have a bound.
- Zero gradients: Fromage still divides a tensor by sqrt(1 + lr^2), and SGD-G and Adam-G scale rows on spheres to norm 1.
  test_step_is_noop_for_zero_grads holds them to just that.
- The ball of ALI-G's `max_norm` is around all groups together: test_contract.py leaves it out where one group rests.
- A parameter that is twice in one group is an error, in torch a warning.
- State follows the parameter to its device, the step count too, which torch keeps on the CPU (test_state_dict_with_cuda_params).
- test_second_order_optims_return_consistent_types is about LBFGS. Several devices, CUDA and large tensors need hardware.
"""

import copy

import torch
from torch.nn import Parameter
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import OptimizerInfo, optims
from torch.testing._internal.common_utils import TestCase, parametrize

from hf_geo import optim
from tests.optim.torch_rows import OPTIM_DB, SPHERE, Problem

each_optimizer = optims(OPTIM_DB, dtypes=[torch.float32])
named = parametrize("named_first", [True, False]), parametrize("named_second", [True, False])


def without_names(state_dict: dict) -> dict:
    groups = [{k: v for k, v in group.items() if k != "param_names"} for group in state_dict["param_groups"]]
    return {**state_dict, "param_groups": groups}


class TestOptimRenewed(TestCase):
    """A method's name is that of torch's; `kwargs` runs over the settings of the optimizer's row."""

    def rows(self, info: OptimizerInfo):
        return (row.kwargs for row in info.optim_inputs_func())

    @each_optimizer
    def test_errors(self, device, dtype, optim_info):
        for row in optim_info.optim_error_inputs_func(device=device, dtype=dtype):
            given = row.optimizer_error_input
            with self.assertRaisesRegex(row.error_type, row.error_regex, msg=given.desc):
                optim_info.optim_cls(given.params, **given.kwargs)

    @parametrize("contiguous", [True, False])
    @parametrize("with_lrsched", [True, False])
    @each_optimizer
    def test_forloop_goes_right_direction(self, device, dtype, optim_info, contiguous, with_lrsched):
        for makers in optim_info.scheduler_inputs if with_lrsched else ((),):
            for kwargs in self.rows(optim_info):
                problem = Problem(contiguous=contiguous)
                optimizer = optim_info.optim_cls(problem.params, **kwargs)
                before = problem.loss().item()
                problem.steps(optimizer, 20, tuple(make(optimizer) for make in makers))
                self.assertLess(problem.loss().item(), before)

    @each_optimizer
    def test_step_is_noop_for_zero_grads(self, device, dtype, optim_info):
        rows = [*self.rows(optim_info), *([SPHERE] if optim_info.optim_cls in (optim.SGDG, optim.AdamG) else [])]
        for kwargs in rows:
            if kwargs.get("weight_decay"):
                continue
            param = Parameter(torch.randn(5, 3))
            optimizer = optim_info.optim_cls([param], **kwargs)
            expected = param.detach().clone()
            if optim_info.optim_cls is optim.Fromage:
                expected /= (1 + optimizer.param_groups[0]["lr"] ** 2) ** 0.5
            if kwargs.get("grassmann"):
                expected /= expected.norm(dim=1, keepdim=True)
            param.grad = torch.zeros(5, 3)
            optimizer.step(lambda: torch.tensor([1.0]))
            self.assertEqual(param.detach(), expected)

    @named[0]
    @named[1]
    @each_optimizer
    def test_state_dict_deterministic(self, device, dtype, optim_info, named_first, named_second):
        for kwargs in self.rows(optim_info):
            problem = Problem()
            optimizer = optim_info.optim_cls(problem.given(named_first), **copy.deepcopy(kwargs))
            problem.steps(optimizer, 10)
            twin = problem.twin()
            other = optim_info.optim_cls(twin.given(named_second), **copy.deepcopy(kwargs))
            saved = copy.deepcopy(optimizer.state_dict())
            other.load_state_dict(saved)
            self.assertEqual(saved, optimizer.state_dict())
            for each, its_optimizer in ((problem, optimizer), (twin, other)):
                each.steps(its_optimizer, 10)
            self.assertEqual(problem.params, twin.params)
            self.assertEqual(without_names(optimizer.state_dict()), without_names(other.state_dict()))
            other.param_groups.extend(other.param_groups)
            repeated = [without_names(each.state_dict())["param_groups"][-1] for each in (optimizer, other)]
            self.assertEqual(*repeated)


instantiate_device_type_tests(TestOptimRenewed, globals(), only_for="cpu")

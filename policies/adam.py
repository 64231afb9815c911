"""Adam in one kernel, without the housekeeping that torch's own repeats in every step."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

# Torch's step with its hooks around it once, however often it was wrapped until now.
_torch_step = torch.no_grad()(torch.optim.Optimizer.profile_hook_step(inspect.unwrap(torch.optim.Adam.step)))


class Gathered(NamedTuple):
    """What the kernel takes for one group: its parameters, their moments, and their steps so far, which lie in ``counts``."""

    parameters: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]
    counts: Tensor


class FusedAdam(torch.optim.Adam):
    """``torch.optim.Adam(fused=True)`` to the bit, in a third of its time where parameters are few and small.

    torch gathers moments and counters from its state in every step, counts each parameter's steps by itself, and writes a
    record for its profiler: two thirds of the time for eight small tensors. Here they are gathered once, and counted in one
    tensor. What is not the ordinary case (the first step, a parameter without gradient, a closure, a hook, groups of another
    Adam that were loaded) is left to torch.

    Args:
        params: parameters, or groups of them; ``lr``, ``betas``, ``eps`` and ``weight_decay`` are torch's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        self._step_supports_amp_scaling = False  # a gradient scaler then does its own scaling
        self._gathered: list[Gathered] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As torch's; ``load_state_dict`` comes here too."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._gathered = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; the value of ``closure``, if there is one."""
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        ordinary = closure is None and not self._has_hooks()
        ordinary = ordinary and not any(gradient is None for group in gradients for gradient in group)
        if ordinary and len(self._gathered) != len(gradients) and all(self._is_ordinary(group) for group in self.param_groups):
            self._gathered = [self._gather(group["params"]) for group in self.param_groups]
        if not (ordinary and len(self._gathered) == len(gradients) and self.state):
            self._gathered = []
            return _torch_step(self, closure)
        for group, grads, (parameters, exp_avgs, exp_avg_sqs, steps, counts) in zip(
            self.param_groups, gradients, self._gathered, strict=True
        ):
            counts.add_(1)
            (beta1, beta2), lr, decay, eps = group["betas"], group["lr"], group["weight_decay"], group["eps"]
            torch._fused_adam_(
                parameters, grads, exp_avgs, exp_avg_sqs, [], steps,
                lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay, eps=eps, amsgrad=False, maximize=group["maximize"],
            )  # fmt: skip
        return None

    # Torch wraps every optimiser's step in a record for its profiler, 19 µs in the midst of training, unless it finds this.
    step.hooked = True  # type: ignore[attr-defined]

    def _has_hooks(self) -> bool:
        own = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return bool(own or _global_optimizer_pre_hooks or _global_optimizer_post_hooks)

    def _is_ordinary(self, group: dict[str, Any]) -> bool:
        """Whether one kernel can do it, and torch has made the state of every parameter."""
        first = group["params"][0]
        unusual = group["amsgrad"] or group["decoupled_weight_decay"] or isinstance(group["lr"], Tensor) or not group["fused"]
        alike = all((one.device, one.dtype) == (first.device, first.dtype) for one in group["params"])
        return not unusual and alike and all(self.state.get(one) for one in group["params"])

    def _gather(self, parameters: list[Tensor]) -> Gathered:
        """The tensors of one group, from the state that torch made, whose counters become parts of one tensor."""
        states = [self.state[parameter] for parameter in parameters]
        counts = torch.stack([state["step"] for state in states])
        for state, count in zip(states, counts.unbind(), strict=True):
            state["step"] = count
        exp_avgs, exp_avg_sqs, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        return Gathered(parameters, exp_avgs, exp_avg_sqs, steps, counts)

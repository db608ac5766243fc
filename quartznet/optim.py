"""NovoGrad (arXiv:1905.11286): Adam with one second moment for a whole tensor instead of one for each weight.

For a parameter tensor p with gradient g, scalar v and tensor m:

    n = ||g||^2
    v = n                              if v = 0, so also after any number of all-zero gradients
        beta2 v + (1 - beta2) n        otherwise
    m = beta1 m + g / (sqrt(v) + eps) + weight_decay p
    p = p - lr m

Three surprises, all NeMo's: no bias correction; the decay enters the momentum, beside the *normalised* gradient; and m
has no factor (1 - beta1), so with beta1 = 0.95 the step grows to 20 lr. Every tensor decays, batch norms and biases
too. Gradients are read, never written.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quartznet.config import OptimSettings


class NovoGrad(torch.optim.Optimizer):
    """State of each parameter: ``step`` (int), ``exp_avg`` = m (shape of p), ``exp_avg_sq`` = v (0-dim).

    Raises:
        ValueError: for a negative ``lr``, ``eps`` or ``weight_decay``, or a beta outside [0, 1).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.95, 0.25),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if min(lr, eps, weight_decay) < 0:
            raise ValueError(f"lr, eps and weight_decay cannot be negative, got {lr}, {eps}, {weight_decay}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step for every parameter that has a gradient; the others stay as they are, without decay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step_group(parameters, group)
        return loss

    def _step_group(self, parameters: list[nn.Parameter], group: dict) -> None:
        """All tensors at once: the ``_foreach`` functions, ``torch.where`` for v = 0, and no wait for the device."""
        states = [self._state_of(parameter) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        momenta = [state["exp_avg"] for state in states]
        beta1, beta2 = group["betas"]

        old = torch.stack([state["exp_avg_sq"] for state in states])
        squares = torch.stack(torch._foreach_norm(gradients)).square()
        new = torch.where(old == 0, squares, beta2 * old + (1 - beta2) * squares)
        divisors = new.sqrt() + group["eps"]

        torch._foreach_mul_(momenta, beta1)
        torch._foreach_addcdiv_(momenta, gradients, divisors.unbind())
        if group["weight_decay"] != 0:
            torch._foreach_add_(momenta, parameters, alpha=group["weight_decay"])
        torch._foreach_add_(parameters, momenta, alpha=-group["lr"])

        torch._foreach_copy_([state["exp_avg_sq"] for state in states], new.unbind())
        for state in states:
            state["step"] += 1

    def _state_of(self, parameter: nn.Parameter) -> dict:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = parameter.new_zeros(())
        return state


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict], settings: OptimSettings
) -> torch.optim.Optimizer:
    """The optimiser of a run, over parameters or groups of them.

    ``settings.betas`` None: (0.95, 0.25) for NovoGrad, (0.9, 0.98) for AdamW.
    """
    if settings.name == "adamw":
        betas = settings.betas or (0.9, 0.98)
        return torch.optim.AdamW(
            parameters, lr=settings.lr, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
    betas = settings.betas or (0.95, 0.25)
    return NovoGrad(parameters, lr=settings.lr, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay)

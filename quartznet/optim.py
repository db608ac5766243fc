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

There are two ways to the same numbers: torch's ``_foreach`` functions, and with ``kernel=True`` the two launches of
``quartznet.novograd_kernel``. The state is the same, so a run may change from one to the other.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quartznet.config import OptimSettings


class NovoGrad(torch.optim.Optimizer):
    """State of each parameter: ``step`` (int), ``exp_avg`` = m (shape of p), ``exp_avg_sq`` = v (0-dim).

    Raises:
        ValueError: for a negative ``lr``, ``eps`` or ``weight_decay``, a beta outside [0, 1), or ``kernel`` without the
            package triton.
    """

    kernel = None  # of copies, which are made without __init__, too

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.95, 0.25),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        kernel: bool = False,
    ) -> None:
        if min(lr, eps, weight_decay) < 0:
            raise ValueError(f"lr, eps and weight_decay cannot be negative, got {lr}, {eps}, {weight_decay}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {betas}")
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.kernel = _open_kernel() if kernel else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step for every parameter that has a gradient; the others stay as they are, without decay.

        Raises:
            ValueError: for what the kernel refuses.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.kernel is not None:
            self._step_kernel()
            return loss
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step_group(parameters, group)
        return loss

    def _step_kernel(self) -> None:
        """All groups at once."""
        pairs = [
            (parameter, number)
            for number, group in enumerate(self.param_groups)
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        if pairs:
            parameters, numbers = ([pair[place] for pair in pairs] for place in (0, 1))
            states = [self._state_of(parameter) for parameter in parameters]
            self.kernel.step(parameters, states, numbers, self.param_groups)
            for state in states:
                state["step"] += 1

    def _step_group(self, parameters: list[nn.Parameter], group: dict) -> None:
        """All tensors at once: the ``_foreach`` functions, ``torch.where`` for v = 0, and no wait for the device."""
        states = [self._state_of(parameter) for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        momenta = [state["exp_avg"] for state in states]
        beta1, beta2 = group["betas"]

        old = torch.stack([state["exp_avg_sq"] for state in states])
        squares = torch.stack(torch._foreach_norm(gradients)).square()
        new = torch.where(old == 0, squares, beta2 * old + (1 - beta2) * squares)

        torch._foreach_mul_(momenta, beta1)
        add_divided(momenta, gradients, new.sqrt() + group["eps"], gradients[0].is_cuda)
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


def add_divided(sums: list[Tensor], gradients: list[Tensor], divisors: Tensor, by_product: bool) -> None:
    """``sums[i] += gradients[i] / divisors[i]`` in place.

    ``by_product`` is for CUDA. There ``_foreach_addcdiv_`` wants divisors of the gradients' shapes; with numbers it
    launches once for each tensor. ``_foreach_addcmul_`` takes numbers as first factor (since torch 2.11), up to 48
    tensors in a launch, so it multiplies by the reciprocals. Each quotient then has one rounding more.
    """
    if by_product:
        torch._foreach_addcmul_(sums, divisors.reciprocal().unbind(), gradients)
    else:
        torch._foreach_addcdiv_(sums, gradients, divisors.unbind())


def _open_kernel():  # a novograd_kernel.NovoGradKernel, which only machines with Triton can import
    try:
        from quartznet.novograd_kernel import NovoGradKernel
    except ModuleNotFoundError as error:
        raise ValueError("NovoGrad(..., kernel=True) needs the package triton; use kernel=False") from error
    return NovoGradKernel()


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict], settings: OptimSettings, kernel: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a run, over parameters or groups of them.

    ``settings.betas`` None: (0.95, 0.25) for NovoGrad, (0.9, 0.98) for AdamW. ``kernel`` is NovoGrad's: two Triton
    launches; AdamW is torch's with and without.
    """
    if settings.name == "adamw":
        betas = settings.betas or (0.9, 0.98)
        return torch.optim.AdamW(
            parameters, lr=settings.lr, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
    betas = settings.betas or (0.95, 0.25)
    return NovoGrad(
        parameters, lr=settings.lr, betas=betas, eps=settings.eps, weight_decay=settings.weight_decay, kernel=kernel
    )

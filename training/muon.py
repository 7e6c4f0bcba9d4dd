"""Muon, orthogonalised momentum: trains the small bundled networks in far fewer steps."""

from collections import defaultdict
from collections.abc import Iterable

import torch

from core.precision import has_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the odd polynomial, Jordan et al. 2024
ADAM_SHARE = 0.1  # learning rate of the other weights, relative to that of the matrices


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices and convolutions, AdamW for everything else.

    Everything else is biases and scales, embeddings, and matrices with fewer than 16 rows or
    columns (first and last layers). A convolution O,I,H,W counts as the matrix O,IHW.
    Parameters come with their names, as from `named_parameters()`. `lr` is that of the matrices, in
    units of the spectral norm of an update; 0.02 suits most networks trained from scratch.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, torch.nn.Parameter]],
        lr: float = 0.02,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(named_parameters, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            others = []
            for name, weight in zip(group["param_names"], group["params"], strict=True):
                if weight.grad is None:
                    continue
                if not is_matrix(name, weight):
                    others.append(weight)
                elif weight.is_cuda:
                    alike[weight.shape].append(weight)
                else:
                    self._muon([weight], group)
            for weights in alike.values():
                self._muon(weights, group)
            if others:
                self._adamw(others, group)

    def _muon(self, weights: list[torch.Tensor], group: dict) -> None:
        """Step matrices of one shape together: a GPU waits for many small products."""
        momentum, grads = group["momentum"], [weight.grad for weight in weights]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, momenta, momentum)  # Nesterov
        matrices = orthogonal(torch.stack([update.flatten(1) for update in updates]))
        rows, columns = matrices.shape[1:]
        scale = max(1, rows / columns) ** 0.5  # so that the root mean square of outputs moves by lr
        steps = [matrix.view_as(weights[0]) for matrix in matrices.unbind()]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-group["lr"] * scale)

    def _adamw(self, weights: list[torch.Tensor], group: dict) -> None:
        lr, (beta1, beta2) = group["lr"] * ADAM_SHARE, group["betas"]
        grads, states = (
            [weight.grad for weight in weights],
            [self.state[weight] for weight in weights],
        )
        for weight, state in zip(weights, states, strict=True):
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
            state["step"] += 1
        counts = [float(state["step"]) for state in states]
        means, squares = ([state[key] for state in states] for key in ("mean", "square"))
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_lerp_(squares, torch._foreach_mul(grads, grads), 1 - beta2)
        roots = torch._foreach_div(squares, [1 - beta2**count for count in counts])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(
            weights, means, roots, [-lr / (1 - beta1**count) for count in counts]
        )


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether Muon suits a weight."""
    return weight.ndim >= 2 and min(weight.shape[:2]) >= 16 and "embedding" not in name


def orthogonal(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The nearest matrices with singular values near 1, of any number of them, ...,R,C, by
    Newton-Schulz iteration: in bf16, which suffices (Jordan et al. 2024), where the device is
    faster in it."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if has_bf16(matrix.device) else matrix.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)

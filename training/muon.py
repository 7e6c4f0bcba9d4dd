"""Muon, orthogonalised momentum: trains the small bundled networks in far fewer steps."""

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
            for name, weight in zip(group["param_names"], group["params"], strict=True):
                if weight.grad is None:
                    continue
                if is_matrix(name, weight):
                    self._muon(weight, group)
                else:
                    self._adamw(weight, group)

    def _muon(self, weight: torch.Tensor, group: dict) -> None:
        state, momentum = self.state[weight], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(weight.grad, 1 - momentum)
        update = weight.grad.lerp(state["momentum"], momentum)  # Nesterov
        matrix = orthogonal(update.flatten(1))
        rows, columns = matrix.shape
        scale = max(1, rows / columns) ** 0.5  # so that the root mean square of outputs moves by lr
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(matrix.view_as(weight), alpha=-group["lr"] * scale)

    def _adamw(self, weight: torch.Tensor, group: dict) -> None:
        state, lr = self.state[weight], group["lr"] * ADAM_SHARE
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        count, (beta1, beta2) = float(state["step"]), group["betas"]
        state["mean"].lerp_(weight.grad, 1 - beta1)
        state["square"].lerp_(weight.grad.square(), 1 - beta2)
        root = (state["square"] / (1 - beta2**count)).sqrt_().add_(group["eps"])
        weight.mul_(1 - lr * group["weight_decay"])
        weight.addcdiv_(state["mean"], root, value=-lr / (1 - beta1**count))


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether Muon suits a weight."""
    return weight.ndim >= 2 and min(weight.shape[:2]) >= 16 and "embedding" not in name


def orthogonal(matrix: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """The nearest matrix with singular values near 1, by Newton-Schulz iteration: in bf16, which
    suffices (Jordan et al. 2024), where the device is faster in it."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if has_bf16(matrix.device) else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)

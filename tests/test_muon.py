import pytest
import torch

from core import precision
from training.muon import Muon, is_matrix, orthogonal


@pytest.fixture(params=["with bf16 units", "without"])
def processor(request, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: request.param != "without")
    return request.param


def test_an_orthogonal_matrix_has_singular_values_near_one(processor):
    torch.manual_seed(0)
    for shape in ((32, 64), (64, 32), (48, 48)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.5 and values.max() < 1.4


def test_the_iteration_is_in_the_type_that_is_fast(processor):
    torch.manual_seed(0)
    matrix = torch.randn(32, 48)
    rounded = orthogonal(matrix)
    assert torch.equal(rounded, rounded.bfloat16().float()) == (processor != "without")
    assert rounded.dtype == torch.float32


def test_the_update_keeps_the_singular_vectors_of_the_gradient(processor):
    torch.manual_seed(0)
    gradient = torch.randn(16, 24)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    rotated = u.T @ orthogonal(gradient) @ v.T
    assert (rotated - torch.diag(rotated.diag())).abs().max() < 0.1


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (32, 32), (48, 16, 3, 3)])
def test_a_matrix_moves_as_under_torchs_own_muon(monkeypatch, shape):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)  # torch iterates in bf16 always
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs, start = torch.nn.Parameter(ours.detach().flatten(1).clone()), ours.detach().clone()
    options = {"lr": 0.05, "momentum": 0.6, "weight_decay": 0.1}
    muon, reference = Muon([("w", ours)], **options), torch.optim.Muon([theirs], **options)
    for _ in range(4):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1).clone()
        muon.step()
        reference.step()
        apart, moved = ours.detach().flatten(1) - theirs, (ours - start).detach()
        assert apart.norm() < 0.06 * moved.norm()  # bf16 alone makes 4 % of it


def test_first_and_last_layers_norms_and_embeddings_are_left_to_adamw():
    assert is_matrix("unet.mid.weight", torch.zeros(32, 32, 3, 3))
    assert is_matrix("unet.proj.weight", torch.zeros(16, 16))
    assert not is_matrix("unet.narrow.weight", torch.zeros(15, 64))
    assert not is_matrix("unet.conv_in.weight", torch.zeros(32, 8, 3, 3))
    assert not is_matrix("unet.norm.weight", torch.zeros(32))
    assert not is_matrix("text_encoder.token_embedding.weight", torch.zeros(512, 32))


def test_a_weight_without_a_gradient_stays_and_those_after_it_learn():
    first, second = (torch.nn.Parameter(torch.ones(16, 16)) for _ in range(2))
    muon = Muon([("frozen", first), ("w", second)], lr=0.1)
    second.grad = torch.randn(16, 16)
    muon.step()
    assert torch.equal(first, torch.ones(16, 16)) and not torch.equal(second, first)


def test_what_is_no_matrix_moves_as_under_torch_adamw():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.arange(8.0)) for _ in range(2))
    muon = Muon([("bias", ours)], lr=0.1, betas=(0.9, 0.98), weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(8)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)

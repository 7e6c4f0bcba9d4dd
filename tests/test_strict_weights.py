"""A file holds just the tensors of a network, or it is refused by the name of the first that is
wrong."""

import pytest
import torch
from safetensors.torch import save_file

from core import strict_weights


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return network().state_dict()


def load(weights: dict[str, torch.Tensor], path) -> torch.nn.Module:
    save_file(weights, path)
    with torch.device("meta"):
        model = network()
    return strict_weights.load(model, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_network_without_weights_takes_those_of_a_file_in_fp32(weights, tmp_path, dtype):
    stored = {n: t.to(dtype) if t.is_floating_point() else t for n, t in weights.items()}
    model = load(stored, tmp_path / "w.safetensors")
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name].to(dtype).to(tensor.dtype))
        assert tensor.dtype == (torch.float32 if tensor.is_floating_point() else torch.int64)


def test_what_batch_normalisation_counts_while_it_learns_may_be_missing(weights, tmp_path):
    del weights["1.num_batches_tracked"]
    model = load(weights, tmp_path / "w.safetensors")
    assert model(torch.zeros(2, 3)).shape == (2, 2)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"0.bias": None}, "it has no 0.bias"),
        ({"1.running_mean": None}, "it has no 1.running_mean"),
        ({"0.weight": torch.zeros(2, 4)}, "0.weight has the shape 2 x 4, not 2 x 3"),
        ({"0.weight": torch.zeros(6)}, "0.weight has the shape 6, not 2 x 3"),
        ({"head.weight": torch.zeros(1)}, "head.weight is none of its tensors"),
        ({"0.weight": torch.zeros(2, 3, dtype=torch.int8)}, "0.weight is I8, no floating-point"),
    ],
)
def test_the_first_wrong_tensor_is_named(weights, tmp_path, changed, sentence):
    changed = {name: tensor for name, tensor in (weights | changed).items() if tensor is not None}
    with pytest.raises(ValueError, match=sentence):
        load(changed, tmp_path / "w.safetensors")


@pytest.mark.parametrize("older", [False, True])
def test_a_pickle_is_called_one_and_is_not_opened(weights, tmp_path, older, monkeypatch):
    torch.save(weights, tmp_path / "w.pt", _use_new_zipfile_serialization=not older)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    with pytest.raises(ValueError, match="it is a pickle, which can run code"):
        strict_weights.shapes_of(tmp_path / "w.pt")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(weights, tmp_path, kept):
    save_file(weights, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match="header"):
        strict_weights.shapes_of(tmp_path / "w.safetensors")

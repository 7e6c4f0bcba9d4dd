"""What writes a part as ONNX or OpenVINO, and runs it again from the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from core.errors import UserError
from exporting.parts import Part

LARGE = 2**30  # bytes of weights; from 2 GiB ONNX has them in a file of their own


class Format(NamedTuple):
    """`write` puts a part into a folder; `run` gives the output of a file for inputs."""

    file: str
    packages: tuple[str, ...]
    backend: str  # of Triton
    write: Callable[[Part, Path], None]
    run: Callable[[Path, Part, list[list[torch.Tensor]]], list[np.ndarray]]


def _write_onnx(part: Part, folder: Path) -> None:
    dynamic = {
        tensor.name: {
            axis: torch.export.Dim.DYNAMIC
            for axis, side in enumerate(tensor.shape)
            if isinstance(side, str)
        }
        for tensor in part.inputs
    }
    with _quietly():
        program = torch.onnx.export(
            part.module,
            tuple(part.example(2, 2, 3)),
            input_names=[tensor.name for tensor in part.inputs],
            output_names=[part.output.name],
            dynamic_shapes=tuple(dynamic.values()),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    weights = sum(each.numel() * each.element_size() for each in part.module.parameters())
    program.save(folder / "model.onnx", external_data=weights > LARGE)


def _run_onnx(file: Path, part: Part, calls: list[list[torch.Tensor]]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [session.run(None, _named(part, inputs))[0] for inputs in calls]


def _write_openvino(part: Part, folder: Path) -> None:
    import openvino

    with _quietly():
        model = openvino.convert_model(
            part.module, example_input=_tensors(part, part.example(2, 2, 3))
        )
    for port, tensor in zip(model.inputs, part.inputs, strict=True):
        port.get_tensor().set_names({tensor.name})
        sides = (-1 if isinstance(side, str) else side for side in tensor.shape)
        port.get_node().set_partial_shape(openvino.PartialShape(list(sides)))
    model.outputs[0].get_tensor().set_names({part.output.name})
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def _run_openvino(file: Path, part: Part, calls: list[list[torch.Tensor]]) -> list[np.ndarray]:
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(file), "CPU", exact)
    return [compiled(_named(part, inputs))[0] for inputs in calls]


FORMATS = {
    "onnx": Format(
        "model.onnx", ("onnx", "onnxscript", "onnxruntime"), "onnxruntime", _write_onnx, _run_onnx
    ),
    "openvino": Format("model.xml", ("openvino",), "openvino", _write_openvino, _run_openvino),
}


def check_installed(name: str) -> None:
    """Raises UserError where a package that the format needs is missing."""
    missing = [package for package in FORMATS[name].packages if find_spec(package) is None]
    if missing:
        raise UserError(
            f"--format {name} needs packages that are not here ({', '.join(missing)}). Install "
            f"them: pip install {' '.join(FORMATS[name].packages)}"
        )


def _tensors(part: Part, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {tensor.name: value for tensor, value in zip(part.inputs, inputs, strict=True)}


def _named(part: Part, inputs: list[torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in _tensors(part, inputs).items()}


@contextmanager
def _quietly():
    """Their tracers warn of Python in diffusers that they evaluate once."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        yield

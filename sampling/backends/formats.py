"""What writes a part as ONNX or OpenVINO, and opens it from the file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch

from sampling.backends.parts import Part, Tensor

LARGE = 2**30  # bytes of weights; from 2 GiB ONNX has them in a file of their own
TOLERANCE = 2e-3  # of the largest value of an output; rounding of fp32 in many layers gives 5e-4

# Inputs by name -> outputs, which no later call overwrites: deep features are kept for some steps.
Network = Callable[[dict[str, np.ndarray]], Sequence[np.ndarray]]


class Unfit(ValueError):
    """A network does not compute what PyTorch does."""


class Format(NamedTuple):
    """`write` puts a part into a folder; `open` makes its file a function of inputs."""

    file: str
    triton: str  # what Triton calls it
    write: Callable[[Part, Path], None]
    open: Callable[[Path], Network]


def _write_onnx(part: Part, folder: Path) -> None:
    # Reasoning about any size takes torch.export a minute, tracing one five seconds.
    (_trace_onnx if part.multiple == 1 else _export_onnx)(part, folder)


def _trace_onnx(part: Part, folder: Path) -> None:
    dynamic = {
        tensor.name: {axis: side for axis, side in enumerate(tensor.shape) if isinstance(side, str)}
        for tensor in (*part.inputs, *part.outputs)
    }
    with _quietly():
        torch.onnx.export(
            part.module,
            tuple(part.example(2, *part.traced)),
            folder / "model.onnx",
            input_names=_names(part.inputs),
            output_names=_names(part.outputs),
            dynamic_axes=dynamic,
            opset_version=18,
            dynamo=False,
        )


def _export_onnx(part: Part, folder: Path) -> None:
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
            tuple(part.example(2, *part.traced)),
            input_names=_names(part.inputs),
            output_names=_names(part.outputs),
            dynamic_shapes=tuple(dynamic.values()),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    weights = sum(each.numel() * each.element_size() for each in part.module.parameters())
    program.save(folder / "model.onnx", external_data=weights > LARGE)


def _open_onnx(file: Path) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}  # without those that no layer uses
    return lambda inputs: session.run(
        None, {name: value for name, value in inputs.items() if name in taken}
    )


def _write_openvino(part: Part, folder: Path) -> None:
    openvino = _openvino()
    example = dict(zip(_names(part.inputs), part.example(2, *part.traced), strict=True))
    with _quietly():
        model = openvino.convert_model(part.module, example_input=example)
    for port, tensor in zip(model.inputs, part.inputs, strict=True):
        port.get_tensor().set_names({tensor.name})
        sides = (-1 if isinstance(side, str) else side for side in tensor.shape)
        port.get_node().set_partial_shape(openvino.PartialShape(list(sides)))
    for port, tensor in zip(model.outputs, part.outputs, strict=True):
        port.get_tensor().set_names({tensor.name})
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)


def _open_openvino(file: Path) -> Network:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = _openvino().Core().compile_model(str(file), "CPU", exact)
    request = compiled.create_infer_request()
    return lambda inputs: list(request.infer(inputs, share_inputs=True).values())


def _openvino() -> ModuleType:
    """OpenVINO without its telemetry, which would tell Google Analytics of each conversion."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # not importable
    import openvino

    return openvino


FORMATS = {
    "onnx": Format("model.onnx", "onnxruntime", _write_onnx, _open_onnx),
    "openvino": Format("model.xml", "openvino", _write_openvino, _open_openvino),
}


def named(part: Part, inputs: Sequence[torch.Tensor]) -> dict[str, np.ndarray]:
    """Inputs as a Network takes them."""
    return {name: value.numpy() for name, value in zip(_names(part.inputs), inputs, strict=True)}


def difference(part: Part, network: Network, inputs: list[torch.Tensor]) -> float:
    """The largest difference from PyTorch in a call, as a share of the output's largest value.
    Raises Unfit for an output of another shape."""
    found = []
    for right, output in zip(part(inputs), network(named(part, inputs)), strict=True):
        if output.shape != right.shape:
            raise Unfit(f"its {part.name} gives {output.shape} for {tuple(right.shape)}")
        found.append(float(np.abs(output - right.numpy()).max() / right.abs().max()))
    return float(np.max(found))  # NaN, where there is one


def _names(tensors: Sequence[Tensor]) -> list[str]:
    return [tensor.name for tensor in tensors]


@contextmanager
def _quietly():
    """Their tracers warn of Python in diffusers that they evaluate once."""
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        yield

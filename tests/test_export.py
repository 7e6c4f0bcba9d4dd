"""Exports for servers without Python: each part is PyTorch's, and a script draws from them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import export
from core.errors import UserError
from exporting.summary import multiply_adds, parameters_by_group
from sampling.backends import choice, formats
from sampling.backends.choice import BACKENDS
from sampling.backends.formats import FORMATS, TOLERANCE
from sampling.backends.parts import parts_of
from sampling.generator import Generator
from sampling.pipeline import open_pipeline
from sampling.request import Request

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "deploy" / "draw_exported.py"
# As a module that cannot be imported: the script has to do without.
RUN = (
    "import sys, runpy; sys.modules.update(dict.fromkeys(['torch', 'sampling', 'core']));"
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module", params=FORMATS)
def exported(request, tiny_model, tmp_path_factory) -> Path:
    if missing := BACKENDS[request.param].missing:
        pytest.skip(f"needs pip install {' '.join(missing)}")
    target = tmp_path_factory.mktemp("exported") / request.param
    export.main([tiny_model, "--to", str(target), "--format", request.param])
    return target


def test_all_parts_are_those_of_pytorch_at_several_sizes_and_batches(exported):
    signature = json.loads((exported / "signature.json").read_text())
    assert list(signature["parts"]) == ["text_encoder", "unet", "vae_decoder"]
    for part in signature["parts"].values():
        assert part["largest_difference_from_pytorch"] < TOLERANCE
        assert part["bytes"] > 4 * part["parameters"]
    unet = signature["parts"]["unet"]["inputs"]
    assert unet[0] == {
        "name": "sample", "datatype": "FP32", "shape": ["batch", 4, "height", "width"],
    }  # fmt: skip


def test_the_script_draws_the_same_picture_from_the_files_alone(exported, tiny_model, tmp_path):
    size = {"height": 32, "width": 32}
    request = Request("a red creature", seed=2**32 - 1, steps=5, scheduler="DDIM", **size)
    (ours,) = Generator.load(tiny_model, device="cpu").pictures([request])
    words = ["a red creature", "--seed", str(2**32 - 1), "--steps", "5"]
    subprocess.run(
        [sys.executable, "-c", RUN, SCRIPT, exported, *words, "--output", tmp_path / "out.png"],
        check=True, cwd=tmp_path,
    )  # fmt: skip
    theirs = np.asarray(Image.open(tmp_path / "out.png"), float)
    assert np.abs(theirs - np.asarray(ours.image, float)).mean() < 1


def test_the_example_request_gives_the_example_answer(exported, tiny_model):
    kind = FORMATS[exported.name]
    for part in parts_of(open_pipeline(tiny_model, "cpu", "fp32")):
        asked, answer = (
            json.loads((exported / "examples" / f"{part.name}.{what}.json").read_text())
            for what in ("request", "answer")
        )
        assert [each["name"] for each in asked["inputs"]] == [each.name for each in part.inputs]
        types = {"FP32": np.float32, "INT64": np.int64}
        inputs = [
            torch.from_numpy(np.array(each["data"], types[each["datatype"]]).reshape(each["shape"]))
            for each in asked["inputs"]
        ]
        file = exported / "models" / part.name / "1" / kind.file
        output = kind.open(file)(formats.named(part, inputs))
        right = np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"])
        np.testing.assert_allclose(output, right, atol=TOLERANCE * np.abs(right).max())


def test_the_script_is_short_and_needs_neither_torch_nor_this_project():
    text = SCRIPT.read_text()
    assert len(text.splitlines()) <= 60
    assert not {"torch", "sampling", "core", "diffusers", "transformers"} & set(
        line.split()[1].split(".")[0]
        for line in text.splitlines()
        if line.startswith(("import ", "from "))
    )


def test_its_noise_is_that_of_pytorch():
    source = SCRIPT.read_text().split("def noise_of")[1].split("\n\n\n")[0]
    names: dict = {"np": np}
    exec(f"def noise_of{source}", names)
    for seed in (0, 7, 2**32 - 1):
        generator = torch.Generator("cpu").manual_seed(seed)
        right = torch.randn(1, 4, 8, 8, generator=generator).numpy()
        np.testing.assert_allclose(names["noise_of"](seed, 1, 4, 8, 8), right, atol=1e-5)


# Size of a model


def test_parameters_and_multiply_adds_are_counted(tiny_model):
    text_encoder, unet, decoder = parts_of(open_pipeline(tiny_model, "cpu", "fp32"))
    network = unet.module.unet
    assert sum(parameters_by_group(unet).values()) == network.num_parameters()
    assert "down_blocks.0" in parameters_by_group(unet)
    assert list(parameters_by_group(decoder)) == ["decoder", "post_quant_conv"]
    assert set(parameters_by_group(text_encoder)) == {"embeddings", "encoder", "final_layer_norm"}
    first = 4 * 8 * 9 * 4 * 4  # of conv_in: 4 to 8 channels, 3 x 3, at 4 x 4 places
    one = multiply_adds(unet, 4, 4)
    assert one > first and multiply_adds(unet, 4, 4, batch=2) == 2 * one


# The command


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        export.main(list(words))
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_file_is_written_and_named(tiny_model, tmp_path, capsys):
    target = tmp_path / "a.safetensors"
    export.main([tiny_model, "--to", str(target), "--dtype", "fp32"])
    assert len(load_file(target)) > 100
    said = capsys.readouterr()
    assert f"{target.stat().st_size:,} bytes, fp32" in said.out
    assert "AUTOMATIC1111, Forge and ComfyUI do not" in said.err
    assert "is there already" in refusal(tiny_model, "--to", str(target))


def test_what_cannot_be_is_a_sentence_and_nothing_is_written(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no format 'gguf'" in refusal(tiny_model, "--to", "a", "--format", "gguf")
    assert "no model folder 'gone'" in refusal("gone", "--to", "a.safetensors")
    assert "holds no LoRA" in refusal(tiny_model, "--to", "a.safetensors", "--format", "lora")
    assert "writes fp32" in refusal(tiny_model, "--to", "a", "--format", "onnx", "--dtype", "fp16")
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    words = refusal(tiny_model, "--to", "a", "--format", "openvino")
    assert "(openvino). Install them: pip install openvino" in words
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    Path("taken").mkdir()
    assert "is there already" in refusal(tiny_model, "--to", "taken", "--format", "onnx")
    assert "no folder 'b'" in refusal(tiny_model, "--to", "b/a", "--format", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_full_disk_is_a_sentence_and_nothing_is_left(format_name, tiny_model, small_disk):
    if missing := BACKENDS[format_name].missing:
        pytest.skip(f"needs pip install {' '.join(missing)}")
    disk = small_disk(1)
    (disk / "filler").write_bytes(bytes(1_000_000))
    words = refusal(tiny_model, "--to", str(disk / "a"), "--format", format_name)
    assert "cannot be written" in words
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_part_that_is_not_pytorchs_is_refused_and_nothing_is_left(
    tiny_model, tmp_path, monkeypatch
):
    def write(part, place):
        (place / "model.onnx").write_text(part.name)

    def opened(file):
        part = parts[file.read_text()]
        return lambda inputs: [part(list(map(torch.from_numpy, inputs.values())))[0].numpy() * 1.1]

    parts = {part.name: part for part in parts_of(open_pipeline(tiny_model, "cpu", "fp32"))}
    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(write=write, open=opened))
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    words = refusal(tiny_model, "--to", str(tmp_path / "a"), "--format", "onnx")
    assert "text_encoder differs from PyTorch" in words
    assert not list(tmp_path.iterdir())

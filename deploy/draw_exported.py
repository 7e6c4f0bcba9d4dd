"""Draw from what `export.py --format onnx|openvino` wrote, without PyTorch and this project.

python draw_exported.py FOLDER "a red creature" --seed 7 --output red.png

It needs numpy, pillow, tokenizers, and onnxruntime or openvino. The picture is that of
`generate.py --scheduler DDIM` at the same seed, within rounding.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image
from tokenizers import Tokenizer


def opened(folder: Path):
    """A part of the model as a function of its named inputs."""
    if (file := folder / "1" / "model.onnx").exists():
        session = import_module("onnxruntime").InferenceSession(str(file))
        return lambda **inputs: session.run(None, inputs)[0]
    exact, core = {"INFERENCE_PRECISION_HINT": "f32"}, import_module("openvino").Core()
    model = core.compile_model(str(file.with_suffix(".xml")), "CPU", exact)
    return lambda **inputs: model(inputs)[0]


def noise_of(seed: int, *shape: int) -> np.ndarray:
    """The numbers of torch.randn on a CPU: MT19937, then Box-Muller in blocks of 16 numbers."""
    bits = np.frombuffer(np.random.RandomState(seed).bytes(4 * int(np.prod(shape))), "<u4")
    uniform = (bits % 2**24 / np.float32(2**24)).astype("f4").reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1, dtype="f4").reshape(shape)


parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
for name in ("folder", "prompt"):
    parser.add_argument(name)
for name, usual in {"seed": 0, "steps": 20, "guidance_scale": 5.0, "output": "out.png"}.items():
    parser.add_argument(f"--{name}", type=type(usual), default=usual)
args = parser.parse_args()
about = json.loads((Path(args.folder) / "signature.json").read_text())
models = Path(args.folder) / "models"
text_encoder, unet, decoder = (opened(models / name) for name in about["parts"])
tokenizer = Tokenizer.from_file(f"{args.folder}/tokenizer/tokenizer.json")
tokenizer.enable_truncation(about["tokens"])
tokenizer.enable_padding(length=about["tokens"], pad_id=about["pad_token"])
ids = np.array([tokenizer.encode(text).ids for text in ("", args.prompt)])
words, x = text_encoder(input_ids=ids), noise_of(args.seed, 1, *about["latents"])
schedule, alphas = about["scheduler"], about["scheduler"]["alphas_cumprod"]
stride = len(alphas) // args.steps
for t in np.arange(args.steps)[::-1] * stride + schedule["steps_offset"]:
    out = unet(sample=np.repeat(x, 2, 0), timestep=np.repeat(t, 2), encoder_hidden_states=words)
    out = out[:1] + args.guidance_scale * (out[1:] - out[:1])  # classifier-free guidance
    a, b = alphas[t], alphas[t - stride] if t >= stride else schedule["final_alpha"]
    eps = out if schedule["prediction_type"] == "epsilon" else a**0.5 * out + (1 - a) ** 0.5 * x
    x = (x - (1 - a) ** 0.5 * eps) * (b / a) ** 0.5 + (1 - b) ** 0.5 * eps  # DDIM
pixels = decoder(latents=x)[0].transpose(1, 2, 0)
Image.fromarray((pixels * 255).round().astype("u1")).save(args.output)

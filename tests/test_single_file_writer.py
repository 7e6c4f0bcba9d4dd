"""One file for other programs: every bit comes back, and what they would misread is refused."""

import hashlib
import json
import shutil
import types

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from diffusers import StableDiffusionPipeline
from runs import config_for, prepared
from safetensors import safe_open
from safetensors.torch import load_file
from test_lora import drawn

from core.errors import UserError
from core.tensor_names import KOHYA_FILE, LORA_FILE
from sampling import single_file_writer
from sampling.pipeline import open_pipeline
from sampling.single_file_writer import write_kohya_lora, write_single_file
from training.loop import train

LORA = {"method": "lora", "rank": 2, "lora_alpha": 1.0, "train_text_encoder": True}
RUNS = {
    "full": {"train_text_encoder": True},
    "merged LoRA": {**LORA, "merge_lora": True},
    "LoRA alone": LORA,
    "DreamBooth": {"instance_prompt": "a photo of sks creature", "train_data_dir": None},
}


@pytest.fixture(scope="module", params=[(run, d) for run in RUNS for d in ("fp16", "fp32")])
def trained(request, tiny_model, tmp_path_factory):
    """The folder of a trained model, and the type of its numbers."""
    run_name, dtype = request.param
    place = tmp_path_factory.mktemp("trained")
    options = RUNS[run_name] | {"save_dtype": dtype}
    if "instance_prompt" in options:
        config_for(tiny_model, place)  # writes its pictures
        options["instance_data_dir"] = str(place / "data")
    config = config_for(tiny_model, place, **options)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, run.manifest(latents, 3))
    return config.output, dtype


def tensors_of(pipe) -> dict[str, torch.Tensor]:
    parts = {name: getattr(pipe, name) for name in ("unet", "vae", "text_encoder")}
    return {f"{n}.{k}": t for n, part in parts.items() for k, t in part.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def beside(file, model):
    """The configs of a model, where those of a single file are looked for."""
    shutil.copytree(model, file.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))


def test_every_bit_comes_back_from_file_and_folder(trained, tiny_model, tmp_path):
    model, dtype = trained
    opened = open_pipeline(str(model), "cpu", "fp32")
    write_single_file(model, tmp_path / "one.safetensors", dtype)
    beside(tmp_path / "one.safetensors", tiny_model)
    ours = open_pipeline(str(tmp_path / "one.safetensors"), "cpu", "fp32")
    theirs = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "one.safetensors"), config=tiny_model, local_files_only=True,
        torch_dtype=torch.float32,
    )  # fmt: skip
    if not (dtype == "fp16" and (model / LORA_FILE).exists()):  # merging, in fp32, is not fp16
        assert same(tensors_of(ours), tensors_of(opened))
    assert same(tensors_of(ours), tensors_of(theirs))
    ours.to(getattr(torch, single_file_writer.DTYPES[dtype])).save_pretrained(tmp_path / "folder")
    write_single_file(tmp_path / "folder", tmp_path / "two.safetensors", dtype)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert same(one, two)


def test_fp16_is_rounded_once_from_what_is_opened(trained, tmp_path):
    model, _ = trained
    for dtype in ("fp16", "fp32"):
        write_single_file(model, tmp_path / f"{dtype}.safetensors", dtype)
    half, full = (load_file(tmp_path / f"{dtype}.safetensors") for dtype in ("fp16", "fp32"))
    assert same(half, {name: tensor.half() for name, tensor in full.items()})


def test_all_names_and_shapes_of_stable_diffusion_1_are_the_documented_ones():
    """As CompVis published them: counted, and the ones by which programs tell what a file is."""
    weights = single_file_writer.compvis_weights(stable_diffusion_1())
    start = {"unet": "model.diffusion_model.", "vae": "first_stage_model.",
             "text": "cond_stage_model.transformer.text_model."}  # fmt: skip
    found = {part: [n for n in weights if n.startswith(s)] for part, s in start.items()}
    assert {part: len(names) for part, names in found.items()} == {
        "unet": 686, "vae": 248, "text": 196,
    }  # fmt: skip
    assert sum(map(len, found.values())) == len(weights)
    parameters = {p: sum(weights[n].numel() for n in names) for p, names in found.items()}
    assert parameters == {"unet": 859_520_964, "vae": 83_653_863, "text": 123_060_480}
    unet, vae, text = start.values()
    documented = {
        f"{unet}time_embed.0.weight": (1280, 320),
        f"{unet}input_blocks.0.0.weight": (320, 4, 3, 3),
        f"{unet}input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        f"{unet}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        f"{unet}input_blocks.3.0.op.weight": (320, 320, 3, 3),
        f"{unet}input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        f"{unet}input_blocks.11.0.out_layers.3.bias": (1280,),
        f"{unet}middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        f"{unet}output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        f"{unet}output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        f"{unet}output_blocks.11.0.in_layers.2.weight": (320, 640, 3, 3),
        f"{unet}out.2.weight": (4, 320, 3, 3),
        f"{vae}encoder.down.0.block.0.conv1.weight": (128, 128, 3, 3),
        f"{vae}encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
        f"{vae}encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        f"{vae}decoder.up.0.block.2.conv2.weight": (128, 128, 3, 3),
        f"{vae}decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        f"{vae}decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        f"{vae}quant_conv.weight": (8, 8, 1, 1),
        f"{vae}post_quant_conv.weight": (4, 4, 1, 1),
        f"{text}embeddings.token_embedding.weight": (49408, 768),
        f"{text}embeddings.position_embedding.weight": (77, 768),
        f"{text}encoder.layers.11.mlp.fc1.weight": (3072, 768),
        f"{text}final_layer_norm.weight": (768,),
    }
    assert {name: tuple(weights[name].shape) for name in documented} == documented


def stable_diffusion_1():
    """The parts of a Stable Diffusion 1 without numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        return types.SimpleNamespace(
            unet=UNet2DConditionModel(cross_attention_dim=768),
            vae=AutoencoderKL(
                block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072,
                                                      num_attention_heads=12)),
        )  # fmt: skip


def test_the_file_says_what_it_is(tiny_model, tmp_path):
    note = write_single_file(tiny_model, tmp_path / "a.safetensors")
    assert "not its sizes (unet's block_out_channels is [8, 16]" in note and "diffusers" in note
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        metadata = file.metadata()
    said = {k.removeprefix("modelspec."): v for k, v in metadata.items() if k != "format"}
    whole = (tmp_path / "a.safetensors").read_bytes()
    data = whole[8 + int.from_bytes(whole[:8], "little") :]
    assert said.pop("hash_sha256") == f"0x{hashlib.sha256(data).hexdigest()}"
    assert said == {
        "sai_model_spec": "1.0.1", "architecture": "stable-diffusion-v1", "title": "tiny",
        "implementation": "https://github.com/CompVis/stable-diffusion",
        "resolution": "32x32", "prediction_type": "epsilon",
    }  # fmt: skip


def test_a_lora_alone_is_written_as_kohya_has_it(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, **LORA)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, run.manifest(latents, 3))
    write_kohya_lora(config.output, tmp_path / "new.safetensors", "fp32")
    assert same(load_file(tmp_path / "new.safetensors"), load_file(config.output / KOHYA_FILE))
    (config.output / KOHYA_FILE).unlink()  # as earlier versions wrote it
    write_kohya_lora(config.output, tmp_path / "old.safetensors", "fp32")
    pictures = []
    for name in ("new", "old"):
        pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
        plain = drawn(pipe)
        pipe.load_lora_weights(str(tmp_path), weight_name=f"{name}.safetensors")
        pictures.append(drawn(pipe))
    np.testing.assert_allclose(pictures[0], pictures[1], atol=1e-5)
    assert (pictures[0] != plain).any()


# What is refused


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("vae", {"latent_channels": 8}, "vae's latent_channels is 8, and there always 4"),
        ("vae", {"scaling_factor": 1.0}, "scaling_factor is 1.0"),
        ("scheduler", {"prediction_type": "v_prediction"}, "prediction_type is v_prediction"),
        ("text_encoder", {"hidden_act": "gelu"}, "hidden_act is gelu"),
    ],
)
def test_what_the_layout_cannot_hold_is_one_sentence(part, change, words, tmp_path, monkeypatch):
    pipe = tiny_pipeline()
    getattr(pipe, part).config.__dict__.update(change)
    monkeypatch.setattr(single_file_writer, "open_pipeline", lambda *_: pipe)
    assert words in refusal("a/b", tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def refusal(model, target, dtype="fp16", write=write_single_file) -> str:
    with pytest.raises(UserError) as refused:
        write(model, target, dtype)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_the_bundled_model_is_refused_by_name(tmp_path):
    words = refusal("sd-pokemon-model", tmp_path / "a.safetensors")
    assert "cannot hold 'sd-pokemon-model' (unet's in_channels is 8" in words
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_is_refused_before_a_model_is_opened(tmp_path):
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    for write in (write_single_file, write_kohya_lora):
        assert "is there already" in refusal("gone", taken, write=write)
        assert "does not end in .safetensors" in refusal("gone", tmp_path / "a.ckpt", write=write)
        assert "no folder" in refusal("gone", tmp_path / "b" / "a.safetensors", write=write)
        assert "no dtype 'int8'" in refusal("x", tmp_path / "a.safetensors", "int8", write=write)
    assert taken.read_text() == "mine"


def test_a_wrong_folder_is_a_sentence(tiny_model, tmp_path):
    target = tmp_path / "a.safetensors"
    assert "is no model folder" in refusal(str(tmp_path), target)
    assert "holds no LoRA" in refusal(tiny_model, target, write=write_kohya_lora)
    assert "is no folder" in refusal("gone", target, write=write_kohya_lora)
    (tmp_path / KOHYA_FILE).write_text(json.dumps({}))
    assert "cannot be read as a LoRA" in refusal(tmp_path, target, write=write_kohya_lora)


def test_a_full_disk_leaves_nothing_behind(tiny_model, small_disk):
    disk = small_disk(1)
    (disk / "filler").write_bytes(bytes(900_000))
    assert "cannot be written" in refusal(tiny_model, disk / "a.safetensors", "fp32")
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_numbers_that_fp16_cannot_hold_are_refused(tmp_path, monkeypatch):
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.unet.conv_in.bias[0] = 1e6
    monkeypatch.setattr(single_file_writer, "open_pipeline", lambda *_: pipe)
    words = refusal("a/b", tmp_path / "a.safetensors")
    assert "input_blocks.0.0.bias has values that fp16 cannot hold. Choose --dtype fp32." in words
    assert not list(tmp_path.iterdir())
    write_single_file("a/b", tmp_path / "a.safetensors", "fp32")


def test_a_model_that_states_no_size_is_written_without_a_resolution(tmp_path, monkeypatch):
    pipe = tiny_pipeline()
    pipe.unet.register_to_config(sample_size=None)
    monkeypatch.setattr(single_file_writer, "open_pipeline", lambda *_: pipe)
    write_single_file("a/b", tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert "modelspec.resolution" not in file.metadata()

"""The files of a LoRA: names that others know, and one strength for whoever reads them."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from runs import config_for, prepared
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.tensor_names import KOHYA_FILE, LORA_FILE, kohya_layer
from sampling.generator import Generator
from sampling.pipeline import open_pipeline, sha256_of_weights
from sampling.request import Request
from training import checkpoint_files
from training.loop import train

LORA = {"method": "lora", "rank": 4, "learning_rate": 0.1, "train_text_encoder": True}
STRENGTHS = {"half": 2.0, "whole": None, "odd": 7.0}  # by --lora_alpha
# What ComfyUI looks for in each layer of the text encoder.
OF_TEXT = (*(f"self_attn_{name}_proj" for name in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2")
# What AUTOMATIC1111 translates to the names of the first Stable Diffusion.
KNOWN = (
    r"lora_unet_(down|up)_blocks_\d+_(attentions|resnets)_\d+_.+",
    r"lora_unet_mid_block_(attentions|resnets)_\d+_.+",
    r"lora_unet_(down_blocks_\d+_down|up_blocks_\d+_up)samplers_0_conv",
    r"lora_unet_conv_(in|out)",
    r"lora_unet_time_embedding_linear_[12]",
    rf"lora_te_text_model_encoder_layers_\d+_({'|'.join(OF_TEXT)})",
)


def drawn(pipe) -> torch.Tensor:
    """A picture of two steps: float 1,3,32,32."""
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    return pipe("a creature", num_inference_steps=2, output_type="pt", generator=noise).images


def trained(base: str, place, **options):
    """Config and learner after four steps, saved, with checkpoints after two and four."""
    options = {"max_train_steps": 4, "checkpointing_steps": 2} | LORA | options
    config = config_for(base, place, **options)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, run.manifest(latents, 4))
    return config, learner


@pytest.fixture(scope="module", params=STRENGTHS)
def lora(request, tiny_model, tmp_path_factory):
    """Config and learner of a run, saved, and the picture that it draws."""
    place = tmp_path_factory.mktemp(request.param)
    config, learner = trained(tiny_model, place, lora_alpha=STRENGTHS[request.param])
    with learner.drawing() as pipe:
        picture = drawn(pipe)
    return config, learner, picture


def strength(config) -> float:
    return (config.lora_alpha or config.rank) / config.rank


@pytest.mark.parametrize("file", [LORA_FILE, KOHYA_FILE, None])
def test_pipe_load_lora_weights_draws_as_it_learned_from_either_file(lora, tiny_model, file):
    config, _, picture = lora
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model)
    plain = drawn(pipe)
    pipe.load_lora_weights(config.output, weight_name=file)
    torch.testing.assert_close(drawn(pipe), picture, atol=1e-4, rtol=1e-4)
    assert (plain - picture).abs().max() > 0.01


def test_who_knows_no_metadata_and_adds_up_times_down_gets_the_strength_that_learned(lora):
    config, learner, _ = lora
    plain, kohya = (load_file(config.output / name) for name in (LORA_FILE, KOHYA_FILE))
    with safe_open(config.output / LORA_FILE, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    layers = [name.removesuffix(".alpha") for name in kohya if name.endswith(".alpha")]
    assert len(layers) == len(plain) / 2 == len(learner.weights) / 2
    for name in plain:
        if ".up." not in name:
            continue
        layer = re.sub(r"\.lora(_linear_layer)?\.up\.weight", "", name)
        added = plain[name] @ plain[name.replace(".up.", ".down.")]
        layer = kohya_layer(*layer.split(".", 1))
        up, down = (kohya[f"{layer}.lora_{way}.weight"] for way in ("up", "down"))
        by_kohya = up @ down * kohya[f"{layer}.alpha"] / down.shape[0]
        torch.testing.assert_close(added, by_kohya)
        own = learner.weights[name.split(".")[0] + "." + peft_layer(name) + "lora_B.default.weight"]
        assert torch.equal(up, own)
        assert kohya[f"{layer}.alpha"] == strength(config) * config.rank


def peft_layer(name: str) -> str:
    """down_blocks.1...to_k., of the name of a matrix in diffusers' layout."""
    name = name.partition(".")[2].removeprefix("text_model.")
    return re.sub(r"lora(_linear_layer)?\.up\.weight", "", name)


def test_the_text_encoders_names_have_the_level_that_older_versions_look_for(lora):
    config, _, _ = lora
    of_text = [name for name in load_file(config.output / LORA_FILE) if "text_encoder" in name]
    start = "text_encoder.text_model.encoder.layers."
    assert of_text and all(name.startswith(start) for name in of_text)


def test_kohyas_file_holds_for_each_layer_what_kohyas_scripts_write(lora):
    config, learner, _ = lora
    tensors = load_file(config.output / KOHYA_FILE)
    layers = {name.partition(".")[0] for name in tensors}
    kinds = ("lora_down.weight", "lora_up.weight", "alpha")
    assert tensors.keys() == {f"{layer}.{kind}" for layer in layers for kind in kinds}
    unet = {
        "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        for name in UNet2DConditionModel.from_config(learner.unet.config).state_dict()
        if re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight", name)
    }
    text = {f"lora_te_text_model_encoder_layers_{n}_{each}" for n in (0, 1) for each in OF_TEXT[:4]}
    assert layers == unet | text and len(unet) == 4 * 8
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert all(tensors[f"{layer}.alpha"].shape == () for layer in layers)


def test_every_layer_of_stable_diffusion_1_gets_a_name_that_others_know():
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = [name for name, module in unet.named_modules() if isinstance(module, kinds)]
    names = [kohya_layer("unet", layer) for layer in layers]
    assert len(set(names)) == len(layers) == 282
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k" in names
    for name in names:
        assert any(re.fullmatch(pattern, name) for pattern in KNOWN), name


def test_kohyas_metadata_says_what_it_is(lora):
    config, _, _ = lora
    with safe_open(config.output / KOHYA_FILE, "pt") as file:
        about = file.metadata()
    run = json.loads((config.output / "run.json").read_text())
    said = {
        "ss_network_module": "networks.lora", "ss_network_dim": "4",
        "ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_output_name": "out",
        "ss_sd_model_name": "tiny", "ss_steps": "4",
        "ss_network_alpha": str(4.0 * strength(config)), "ss_session_id": run["run_id"],
        "ss_num_train_images": "12", "format": "pt",
    }  # fmt: skip
    assert {name: about.get(name) for name in said} == said
    assert all(name == "format" or name.startswith("ss_") for name in about)
    assert not any("/" in value for value in about.values())  # no folder of this machine


def test_a_lora_beside_other_layers_than_attention_opens_in_either_layout(tiny_model, tmp_path):
    targets = ("to_k", "conv1", "time_emb_proj", "ff.net.2", "proj_in")
    config, learner = trained(tiny_model, tmp_path, lora_target_modules=targets, lora_alpha=2.0)
    with learner.drawing() as pipe:
        picture = drawn(pipe)
    for file in (LORA_FILE, KOHYA_FILE):
        pipe = StableDiffusionPipeline.from_pretrained(tiny_model)
        pipe.load_lora_weights(config.output, weight_name=file)
        torch.testing.assert_close(drawn(pipe), picture, atol=1e-4, rtol=1e-4)


def test_a_merged_model_has_the_strength_of_its_lora(tiny_model, tmp_path):
    config, learner = trained(tiny_model, tmp_path, lora_alpha=2.0, merge_lora=True)
    with learner.drawing() as pipe:
        picture = drawn(pipe)
    merged = StableDiffusionPipeline.from_pretrained(config.output)
    torch.testing.assert_close(drawn(merged), picture, atol=1e-4, rtol=1e-4)


def test_a_lora_that_says_its_alpha_in_metadata_alone_opens_as_it_learned(
    lora, tiny_model, tmp_path
):
    config, _, picture = lora
    as_earlier_versions_wrote(config.output, tmp_path, strength(config), config.rank)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipe.load_lora_weights(tmp_path, weight_name=LORA_FILE)
    torch.testing.assert_close(drawn(pipe), picture, atol=1e-4, rtol=1e-4)
    ours = open_pipeline(str(tmp_path), "cpu", "fp32")
    torch.testing.assert_close(drawn(ours), picture, atol=1e-4, rtol=1e-4)


def as_earlier_versions_wrote(model, folder, times: float, rank: int) -> None:
    """The folder of a LoRA with the matrices that learned, and alpha in peft's metadata."""
    tensors = {
        name.replace("text_model.", ""): tensor / (times if ".up." in name else 1)
        for name, tensor in load_file(model / LORA_FILE).items()
    }
    layers = {"unet": ["to_k", "to_q", "to_v", "to_out.0"]}
    layers["text_encoder"] = ["q_proj", "k_proj", "v_proj", "out_proj"]
    about = {
        f"{part}.{key}": value
        for part in layers
        for key, value in
        {"r": rank, "lora_alpha": times * rank, "target_modules": layers[part]}.items()
    }  # fmt: skip
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(about)}
    save_file(tensors, folder / LORA_FILE, metadata)
    shutil.copy(model / "run.json", folder)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_counts_as_it_learned_at_every_lora_scale(lora, tmp_path, scale, older):
    config, learner, picture = lora
    model = tmp_path / "model"
    shutil.copytree(config.output, model)
    if older:
        to_older_names(model / "checkpoint-4", learner)
    final = open_pipeline(str(model), "cpu", "fp32", lora_scale=scale)
    step_4 = open_pipeline(str(model), "cpu", "fp32", lora_scale=scale, checkpoint="checkpoint-4")
    torch.testing.assert_close(drawn(step_4), drawn(final), atol=1e-4, rtol=1e-4)
    assert torch.allclose(drawn(final), picture, atol=1e-4) == (scale == 1)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_another_scale_of_an_open_lora_has_the_bits_of_one_opened_at_it(lora, tmp_path, dtype):
    model = str(lora[0].output)
    opened = Generator.load(model, device="cpu", dtype=dtype)
    asked = [Request("a creature", steps=2, lora_scale=scale) for scale in (1.0, 0.35, 2.0, 0, 1.0)]
    for request, picture in zip(asked, opened.pictures(asked), strict=True):
        other = Generator.load(model, device="cpu", dtype=dtype, lora_scale=request.lora_scale)
        (expected,) = other.pictures([replace(request, lora_scale=1)])
        assert picture.image.tobytes() == expected.image.tobytes()
        assert sha256_of_weights(opened.pipe) == sha256_of_weights(other.pipe)
        assert picture.settings.get("lora_scale", 1) == request.lora_scale


@pytest.mark.parametrize("names", [(), ("transformer.blocks.0.attn.to_q.lora_A.weight",)])
def test_one_of_none_of_the_models_layers_is_refused(tiny_model, tmp_path, names):
    save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "lcm.safetensors")
    with pytest.raises(UserError, match=r"lcm\.safetensors does not fit its base model"):
        Generator.load(tiny_model, device="cpu", lora=tmp_path / "lcm.safetensors")


def test_what_is_no_lora_has_no_scale(tiny_model):
    model = Generator.load(tiny_model, device="cpu")
    with pytest.raises(UserError, match=r"tiny is no LoRA\. Leave out lora_scale"):
        next(model.pictures([Request("a"), Request("a", lora_scale=0.5)]))


def to_older_names(folder, learner) -> None:
    """Make a checkpoint one of those that earlier versions wrote: in diffusers' layout, with the
    matrices that learned and no word of alpha; a text encoder without its level."""
    state = json.loads((folder / "state.json").read_text())
    files = {}
    for path in folder.rglob("*.safetensors"):
        name = path.relative_to(folder).as_posix()
        tensors = load_file(path)
        if path.name == KOHYA_FILE:
            name = name.replace(KOHYA_FILE, LORA_FILE)
            tensors = {older_name(own): tensors[of] for of, own in kohya_to_peft(learner).items()}
        elif path.parent.name.startswith("text_encoder"):
            tensors = {key.removeprefix("text_model."): value for key, value in tensors.items()}
        files[name] = {key: value.clone() for key, value in tensors.items()}
    shutil.rmtree(folder)
    checkpoint_files.save(folder, files, state)


def kohya_to_peft(learner) -> dict[str, str]:
    names = {}
    for name in learner.weights:
        part, inner = name.split(".", 1)
        layer, _, matrix = inner.partition(".lora_")
        layer = f"text_model.{layer}" if part == "text_encoder" else layer
        way = {"A": "down", "B": "up"}[matrix[0]]
        names[f"{kohya_layer(part, layer)}.lora_{way}.weight"] = name
    return names


def older_name(own: str) -> str:
    """A matrix's name in the checkpoints of earlier versions."""
    word = "lora_linear_layer" if own.startswith("text_encoder") else "lora"
    own = own.replace(".lora_A.default.", f".{word}.down.")
    return own.replace(".lora_B.default.", f".{word}.up.")


@pytest.mark.parametrize(
    "options", [LORA | {"lora_alpha": 3.0}, {"train_text_encoder": True}], ids=["lora", "full"]
)
def test_a_checkpoint_of_an_earlier_version_is_resumed_to_the_same_bits(
    tiny_model, tmp_path, options
):
    defaults = {"method": "full", "use_ema": True, "learning_rate": 0.01, "lora_alpha": None}
    config, learner = trained(tiny_model, tmp_path, **defaults | options)
    expected = {name: weight.detach().clone() for name, weight in learner.weights.items()}
    shutil.rmtree(config.output / "checkpoint-4")
    to_older_names(config.output / "checkpoint-2", learner)
    again = replace(config, resume_from_checkpoint="latest")
    run, learner, latents = prepared(again)
    train(learner, latents, again, run)
    assert learner.weights.keys() == expected.keys()
    assert all(torch.equal(learner.weights[name], expected[name]) for name in expected)

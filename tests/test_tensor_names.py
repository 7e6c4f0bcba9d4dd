"""Names in files: what is written opens in transformers 4 and 5 alike, and is the same."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_pipeline
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from runs import config_for, prepared
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTokenizer

from core.tensor_names import hub_name, hub_names, own_name
from sampling.pipeline import open_pipeline
from training.loop import train
from training.model import write_pipeline

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = (ROOT / "bundled" / "base-model", ROOT / "sd-pokemon-model")
TEXTS = (
    "a red creature with wings", "Don't!!  3 cats' tails\n, I'M", "Ünïcode, 日本語 🙂", "",
    "antidisestablishmentarianism of the pokemon",
)  # fmt: skip


def names_of_clip(layers: int) -> set[str]:
    """The names of the text encoder in Stable Diffusion 1, as its files on the hub have them."""
    inner = ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
    inner += [f"self_attn.{letter}_proj" for letter in "qkv"] + ["self_attn.out_proj"]
    several = [f"encoder.layers.{layer}.{name}" for layer in range(layers) for name in inner]
    several.append("final_layer_norm")
    names = {f"{name}.{kind}" for name in several for kind in ("weight", "bias")}
    names |= {f"embeddings.{kind}_embedding.weight" for kind in ("token", "position")}
    return {f"text_model.{name}" for name in names}


def checker_pipeline() -> StableDiffusionPipeline:
    """The tiny pipeline with a safety checker, which finds nothing unsafe."""
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    small["num_attention_heads"] = 2
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=small))
    parts = {"safety_checker": checker, "feature_extractor": CLIPImageProcessor()}
    pipe = tiny_pipeline()
    return StableDiffusionPipeline(**pipe.components | parts, requires_safety_checker=True)


def rewrite(path: Path, rename) -> None:
    tensors = {rename(name): tensor.clone() for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.fixture(scope="module", params=["flat", "with their level"])
def base(request, tmp_path_factory) -> Path:
    """A model with a safety checker, whose parts of CLIP have the one names or the others."""
    folder = tmp_path_factory.mktemp("base") / "model"
    checker_pipeline().save_pretrained(folder)
    if request.param == "with their level":
        for part in ("text_encoder", "safety_checker"):
            rewrite(folder / part / "model.safetensors", lambda name: hub_name(part, name))  # noqa: B023
    return folder


RUNS = {
    "full": {"train_text_encoder": True, "use_ema": True},
    "merged": {"method": "lora", "merge_lora": True, "train_text_encoder": True},
}


@pytest.fixture(scope="module", params=RUNS)
def written(request, base, tmp_path_factory):
    """The kind of a run, its learner after two steps, and its folder with a checkpoint."""
    place = tmp_path_factory.mktemp(request.param)
    config = config_for(
        str(base), place, max_train_steps=2, checkpointing_steps=2, **RUNS[request.param]
    )
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, run.manifest(latents, 2))
    return request.param, learner, config.output


def test_every_text_encoder_that_a_run_writes_has_the_names_of_stable_diffusion_1(written):
    kind, _, folder = written
    files = sorted(folder.rglob("text_encoder*/*.safetensors"))
    assert len(files) == (3 if kind == "full" else 1)  # the model, a checkpoint, its average
    for file in files:
        assert load_file(file).keys() == names_of_clip(layers=2), file


@pytest.mark.parametrize("model", BUNDLED, ids=lambda path: path.name)
def test_the_bundled_text_encoders_have_the_names_of_stable_diffusion_1(model):
    assert load_file(model / "text_encoder" / "model.safetensors").keys() == names_of_clip(layers=4)


def test_the_safety_checker_keeps_the_names_that_it_has_on_the_hub(written):
    _, _, folder = written
    names = load_file(folder / "safety_checker" / "model.safetensors").keys()
    inner = {name for name in names if name.startswith("vision_model.")}
    assert len(inner) > 20
    assert all(name.startswith("vision_model.vision_model.") for name in inner)
    assert not any("vision_model.vision_model.vision_model" in name for name in inner)
    assert {"visual_projection.weight", "concept_embeds"} < names


def test_what_is_written_opens_to_the_bit_under_either_names(written, tmp_path):
    kind, learner, folder = written
    flat = tmp_path / "flat"
    shutil.copytree(folder, flat, ignore=shutil.ignore_patterns("checkpoint-*"))
    for part in ("text_encoder", "safety_checker"):
        rewrite(flat / part / "model.safetensors", lambda name: own_name(part, name))  # noqa: B023
    assert "embeddings.token_embedding.weight" in load_file(
        flat / "text_encoder" / "model.safetensors"
    )
    opened, from_flat = (StableDiffusionPipeline.from_pretrained(each) for each in (folder, flat))
    for part in ("text_encoder", "safety_checker", "unet"):
        assert same(getattr(opened, part), getattr(from_flat, part))
    if kind == "full":
        for name, weight in opened.text_encoder.named_parameters():
            assert torch.equal(weight, learner.ema.shadow[f"text_encoder.{name}"])


@pytest.mark.parametrize("written", ["full"], indirect=True)
@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_with_a_text_encoder_draws_with_it_whatever_version_wrote_it(
    written, tmp_path, older
):
    _, learner, folder = written
    shutil.copytree(folder, tmp_path / "model")
    if older:
        for file in (tmp_path / "model" / "checkpoint-2").glob("text_encoder*/*.safetensors"):
            rewrite(file, lambda name: own_name("text_encoder", name))
    pipe = open_pipeline(str(tmp_path / "model"), "cpu", "fp32", checkpoint="checkpoint-2")
    for name, weight in pipe.text_encoder.named_parameters():
        assert torch.equal(weight, learner.ema.shadow[f"text_encoder.{name}"])


def test_names_in_memory_are_as_before_once_a_pipeline_is_written(tmp_path):
    pipe = checker_pipeline()
    before = {part: list(getattr(pipe, part).state_dict()) for part in ("text_encoder", "unet")}
    write_pipeline(pipe, tmp_path / "model")
    with pytest.raises(RuntimeError), hub_names(pipe.components):
        assert pipe.text_encoder.state_dict().keys() == names_of_clip(layers=2)
        raise RuntimeError
    assert before == {part: list(getattr(pipe, part).state_dict()) for part in before}


@pytest.mark.parametrize(
    ("part", "own", "hub"),
    [
        ("text_encoder", "final_layer_norm.bias", "text_model.final_layer_norm.bias"),
        ("safety_checker", "vision_model.a.weight", "vision_model.vision_model.a.weight"),
        ("safety_checker", "concept_embeds", "concept_embeds"),
        ("unet", "conv_in.weight", "conv_in.weight"),
    ],
)
def test_a_name_goes_there_and_back_and_never_twice(part, own, hub):
    assert hub_name(part, own) == hub_name(part, hub) == hub
    assert own_name(part, hub) == own_name(part, own) == own


@pytest.mark.parametrize("model", ["written", *BUNDLED], ids=lambda model: Path(model).name)
def test_a_tokenizer_has_the_files_of_older_versions_and_reads_the_same_by_them(model, tmp_path):
    if model == "written":
        write_pipeline(tiny_pipeline(), tmp_path / "model")
        model = tmp_path / "model"
    folder = model / "tokenizer"
    version, *merges = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    assert version.startswith("#version: 0.2")
    older = CLIPTokenizer(
        vocab=json.loads((folder / "vocab.json").read_text(encoding="utf-8")),
        merges=[tuple(line.split()) for line in merges if line],
        model_max_length=77,
    )
    today = CLIPTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert older(text).input_ids == today(text).input_ids
    assert len(older) == len(today) and older.pad_token_id == today.pad_token_id

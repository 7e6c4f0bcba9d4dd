"""Fixtures: a tiny Stable Diffusion with random weights, of the classes of the real one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("SD_POKEMON_BACKEND", "torch")  # whatever is installed
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small, more threads only wait

import pytest
import torch
from browsing import pytest_runtest_makereport as pytest_runtest_makereport  # a hook
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from core.signals import ENDING

RESOLUTION = 32  # pixels a side of what the tiny model draws


LONGEST = (  # files that take a processor half a minute: one begun last leaves others idle
    "test_image_actions", "test_faults", "test_diffusers_commands", "test_app", "test_fuzz_data",
    "test_compared_models", "test_checkpoints", "test_compare_tab", "test_during_training",
    "test_looks", "test_draw_tab", "test_start_from", "test_tunnel", "test_plan", "test_history",
    "test_processes", "test_known_answers", "test_load",
)  # fmt: skip


def pytest_collection_modifyitems(items: list) -> None:
    """The longest files first, the others as they are found."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True)
def signals_stay_as_they_are():
    """Else a later test that sends one to its own process ends them all."""
    before = [signal.getsignal(number) for number in ENDING]
    yield
    assert [signal.getsignal(number) for number in ENDING] == before


@pytest.fixture(autouse=True, scope="session")
def pages_do_not_measure_how_fast_they_draw():
    """Else they would draw a few pictures, and then while a test types: tests count what is drawn.
    Only where there may be pages: elsewhere nothing of them is imported."""
    if "fakes" not in sys.modules:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("webapp.live.Pace.measure", lambda _: None)
        yield


def byte_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer without merges: every byte is a token, so that any text can be encoded."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def tiny_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A StableDiffusionPipeline of about 100,000 random parameters, 32 px, 4 latent channels."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=RESOLUTION,
        mid_block_add_attention=False,
    )
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=16,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a saved tiny pipeline."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(megabytes)`: the folder of a file system of its own."""
    mounted = []

    def mount(megabytes: int) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
        if (
            os.name != "posix"
            or os.geteuid()
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("only root can mount a small file system, and not in every container")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

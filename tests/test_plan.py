"""The plan: parameters counted, memory measured without weights, options that fit, disk."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from runs import config_for
from safetensors.torch import load_file
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

import train_text_to_image
from core.errors import UserError
from training import memory, memory_trace
from training import plan as planning
from training.config import Config
from training.memory import BaseModel
from training.memory_trace import Autocast, LiveBytes
from training.model import DTYPES
from training.optimizers import OPTIMIZERS
from training.option_warnings import IN_BACKWARD
from training.plan import plan
from training.weights import WEIGHTS

BUNDLED = Path(__file__).parent.parent / "bundled" / "base-model"
GB = 10**9

CONFIGS = {  # of Stable Diffusion v1-4
    "unet": {
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "latent_channels": 4,
        "sample_size": 512,
    },
    "text_encoder": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
    },
}


@pytest.fixture(scope="session")
def v1_4_folder(tmp_path_factory) -> str:
    """The configs of Stable Diffusion v1-4, and no weights."""
    folder = tmp_path_factory.mktemp("models") / "v1-4"
    for part, config in CONFIGS.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(config))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return str(folder)


@pytest.fixture
def v1_4(v1_4_folder, monkeypatch) -> str:
    """The same; what one test has measured of it is there for the next, as within one plan."""
    monkeypatch.setattr(
        planning, "BaseModel", lambda config: base_of(config.pretrained_model_name_or_path)
    )
    return v1_4_folder


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only wait for each other where tensors are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def card(monkeypatch):
    """`card(gigabytes)` puts a card with so much free memory into the machine."""
    return lambda gigabytes: monkeypatch.setattr(
        planning, "memory_of", lambda device: ("a card", gigabytes * GB, gigabytes * GB)
    )


@pytest.fixture
def room(monkeypatch):
    """`room(gigabytes)` leaves so much of the disk free."""
    usage = namedtuple("usage", "free")
    return lambda gigabytes: monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(gigabytes * GB)
    )


def options(model: str, **changed) -> Config:
    usual = {"train_data_dir": "data", "output_dir": "out", "mixed_precision": "no"}
    return Config(pretrained_model_name_or_path=str(model), **usual | changed)


def plan_of(config: Config, device: str = "cuda", processes: int = 1):
    passes = config.gradient_accumulation_steps * processes
    batch = config.train_batch_size * passes
    return plan(config, [(512, 512)] * 833, batch, processes, torch.device(device))


def needs_of(model: str, device: str = "cuda", processes: int = 1, **changed):
    return base_of(model).needs(options(model, **changed), 833, device, processes)


@cache
def base_of(model: str) -> BaseModel:
    return BaseModel(options(model))


def real_learner(config: Config):
    """What learns, with weights, as a run has it on the CPU."""
    pipe = StableDiffusionPipeline.from_pretrained(config.pretrained_model_name_or_path)
    for part in (pipe.unet, pipe.text_encoder):
        part.requires_grad_(False)
    return WEIGHTS[config.method](pipe, config).train()


def pass_of(learner, rows: int, device: str = "cpu", half: torch.dtype | None = None):
    """What the learner predicts for a batch of zeros, under autocast to `half`."""
    unet = learner.unet.config
    x_t = torch.zeros(rows, unet.in_channels, unet.sample_size, unet.sample_size, device=device)
    prompt = torch.zeros(rows, 77, unet.cross_attention_dim, device=device)
    if learner.config.train_text_encoder:
        prompt = torch.zeros(rows, 77, dtype=torch.long, device=device)
    with torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
        return learner(x_t, torch.zeros(rows, device=device), prompt)


def step_bytes(config: Config) -> int:
    """The most bytes at once that a real step on the CPU makes, beside the weights."""
    learner = real_learner(config)
    with LiveBytes() as alive:
        alive.storages |= {memory_trace.key_of(weight) for weight in learner.parameters()}
        for _ in range(config.gradient_accumulation_steps):
            half = DTYPES.get(config.mixed_precision)
            predicted = pass_of(learner, config.train_batch_size, half=half)
            loss = predicted.float().square().mean()
            del predicted
            loss.backward()
    return alive.max


def planned_bytes(config: Config) -> int:
    *_, at_once = base_of(config.pretrained_model_name_or_path).trace(config, "cpu").passing(config)
    return at_once


def kept_bytes(learner, run) -> int:
    """Bytes that autograd keeps of a pass, weights aside."""
    kept, weights = {}, {memory_trace.key_of(weight) for weight in learner.parameters()}

    def keep(tensor):
        kept[memory_trace.key_of(tensor)] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        predicted = run()
    assert predicted.requires_grad
    return sum(storage.nbytes() for key, storage in kept.items() if key not in weights)


def test_the_unet_of_v1_4_has_859_520_964_parameters_and_they_are_counted(v1_4, card):
    card(80)
    assert needs_of(v1_4).learning == {"unet": 859_520_964}
    assert "859,520,964 parameters" in str(plan_of(options(v1_4)))


def test_lora_learns_what_its_rank_and_layers_make(v1_4):
    assert needs_of(v1_4, method="lora").learning == {"unet": 797_184}
    assert needs_of(v1_4, method="lora", rank=8).learning == {"unet": 2 * 797_184}
    fewer = needs_of(v1_4, method="lora", lora_target_modules=("to_q",)).learning["unet"]
    assert 0 < fewer < 797_184 / 3


def test_the_text_encoder_counts_when_it_learns(v1_4):
    learning = needs_of(v1_4, train_text_encoder=True).learning
    assert learning == {"unet": 859_520_964, "text_encoder": 123_060_480}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("again", [None, "largest", "all"])
def test_a_step_takes_the_memory_that_was_planned(tiny_model, precision, again):
    config = options(
        tiny_model,
        mixed_precision=precision,
        gradient_checkpointing=again is not None,
        gradient_checkpointing_blocks=again or "all",
        train_batch_size=6,
    )
    for each in (config, replace(config, gradient_accumulation_steps=2)):
        assert planned_bytes(each) == pytest.approx(step_bytes(each), rel=0.1)


def test_a_student_takes_a_row_for_each_of_its_steps_and_a_teacher_beside_it(tiny_model):
    plain, student = (
        options(tiny_model, train_batch_size=2),
        options(tiny_model, train_batch_size=2, distill=4),
    )
    assert planned_bytes(student) == planned_bytes(replace(plain, train_batch_size=8))
    base = base_of(tiny_model)
    needs = base.needs(student, 8, "cpu", 1)
    assert needs.memory["teacher"] == base.bytes["unet"]
    assert "teacher" not in base.needs(plain, 8, "cpu", 1).memory
    assert "teacher" not in base.needs(replace(student, method="lora"), 8, "cpu", 1).memory


@pytest.mark.parametrize(("again", "within"), [(False, 0.1), (True, 0.12)])
def test_so_does_a_step_of_the_text_encoder(tiny_model, again, within):
    config = options(
        tiny_model, train_text_encoder=True, train_batch_size=6, gradient_checkpointing=again
    )
    assert planned_bytes(config) == pytest.approx(step_bytes(config), rel=within)


@pytest.mark.skipif(not BUNDLED.exists(), reason="bundled/ was deleted")
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(
    ("precision", "again"),
    [("no", False),  # bf16 takes long on processors without units for it
     *(pytest.param("bf16", again, marks=pytest.mark.slow) for again in (False, True))],
)  # fmt: skip
def test_so_does_a_step_of_the_bundled_model(method, precision, again):
    config = options(
        BUNDLED,
        method=method,
        mixed_precision=precision,
        gradient_checkpointing=again,
        train_batch_size=6,
    )
    assert planned_bytes(config) == pytest.approx(step_bytes(config), rel=0.1)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_autograd_keeps_what_the_plan_says_to_the_byte(tiny_model, precision):
    config = options(tiny_model, mixed_precision=precision, train_text_encoder=True)
    config = replace(config, train_batch_size=memory.ROWS)
    half, learner = DTYPES.get(precision), real_learner(config)
    real = kept_bytes(learner, lambda: pass_of(learner, memory.ROWS, half=half))
    planned, _, _ = base_of(tiny_model).trace(config, "cpu")._backward_order(config)
    assert sum(planned.values()) == pytest.approx(real, rel=0.001 if precision == "no" else 0.01)


def test_the_rules_of_autocast_are_those_of_pytorch_on_a_gpu(tiny_model):
    """Fake tensors take number types as on a GPU, without one."""
    config = options(tiny_model, mixed_precision="fp16", train_batch_size=memory.ROWS)
    base = base_of(tiny_model)
    try:
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.autocast_increment_nesting()
        with FakeTensorMode(), torch.device("cuda"):
            unet = UNet2DConditionModel.from_config(base.unet)
            learner = WEIGHTS["full"](SimpleNamespace(unet=unet), config).train()
            with Autocast(None, "cuda"):  # for its attention
                real = kept_bytes(learner, lambda: pass_of(learner, memory.ROWS, "cuda"))
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)
    planned, _, _ = base.trace(config, "cuda")._backward_order(config)
    assert sum(planned.values()) == real


def test_memory_is_known_by_what_it_is_for(v1_4):
    weights = 4 * 859_520_964
    memory = needs_of(v1_4, mixed_precision="fp16", use_ema=True, processes=2).memory
    assert memory["weights"] == memory["gradients"] == memory["moving average"] == weights
    assert memory["state of adamw"] == 2 * weights
    assert memory["weights in fp16"] == pytest.approx(weights / 2, rel=0.001)
    assert "VAE" not in memory
    assert needs_of(v1_4, no_cache=True).memory["VAE"] == 4 * 83_653_863


def test_options_that_save_memory_save_it(v1_4):
    def memory(**changed):
        return needs_of(v1_4, use_ema=True, **changed).memory

    usual = memory()
    assert memory(use_8bit_adam=True)["state of adamw8bit"] == usual["state of adamw"] / 4
    assert usual["state of adamw"] / 2 < memory(optimizer="muon")["state of muon"] < 3.5 * GB
    assert memory(optimizer="prodigy")["state of prodigy"] == 2 * usual["state of adamw"]
    assert "moving average" not in memory(offload_ema=True)
    assert memory(optimizer_in_backward=True)["gradients"] == 4 * 2560 * 1280 * 9
    full, largest, every = (
        memory(**level)["activations"]
        for level in (
            {},
            {"gradient_checkpointing": True, "gradient_checkpointing_blocks": "largest"},
            {"gradient_checkpointing": True},
        )
    )
    assert full > 1.5 * largest > 3 * every
    subject = {"instance_prompt": "a photo of sks dog", "class_prompt": "a photo of a dog"}
    twice = memory(with_prior_preservation=True, **subject)["activations"]
    assert twice == pytest.approx(2 * full)
    half = memory(train_batch_size=8)["activations"]
    assert half == pytest.approx(full / 2)


def test_frozen_weights_are_kept_in_half_precision(v1_4):
    whole = needs_of(v1_4, method="lora").memory["weights"]
    half = needs_of(v1_4, method="lora", mixed_precision="bf16").memory["weights"]
    assert whole - half == 2 * 859_520_964


def test_on_a_cpu_nothing_leaves_the_device(v1_4):
    memory = needs_of(v1_4, "cpu", use_ema=True, offload_ema=True).memory
    assert {"VAE", "text encoder", "moving average"} < memory.keys()
    assert "CUDA" not in memory


def test_processes_that_share_the_weights_take_a_part_each(v1_4):
    alone, of_four = (needs_of(v1_4, processes=4, shard=shard).memory for shard in (False, True))
    for name in ("weights", "state of adamw", "gradients"):
        assert of_four[name] == alone[name] / 4


def test_gradients_come_as_activations_go(v1_4):
    one = needs_of(v1_4, train_batch_size=1)
    several = needs_of(v1_4, train_batch_size=1, gradient_accumulation_steps=2)
    assert one.peaks["training"] < several.peaks["training"] <= sum(several.memory.values())


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_the_vae_takes_the_memory_that_was_planned(tiny_model, verb):
    config = options(tiny_model)
    base = base_of(tiny_model)
    vae = type(base.vae).from_config(base.vae.config)
    shape = (5, 3, 32, 32) if verb == "encode" else (5, 4, 4, 4)
    with torch.no_grad(), LiveBytes() as alive:
        getattr(vae, verb)(torch.zeros(shape))
    assert 5 * base.vae_bytes(config, "cpu", verb) == pytest.approx(alive.max, rel=0.1)


def test_pictures_are_encoded_and_drawn_in_memory_too(v1_4):
    usual = needs_of(v1_4, train_batch_size=1, gradient_checkpointing=True)
    assert usual.peaks.keys() == {"encoding pictures", "training"}
    each = needs_of(v1_4, train_batch_size=1, gradient_checkpointing=True, no_cache=True)
    assert each.peaks["encoding pictures"] - sum(usual.memory.values()) < 2 * GB
    prompts = {"validation_prompts": ("a dog", "a cat")}
    two = needs_of(v1_4, **prompts).peaks["drawing pictures"]
    six = needs_of(v1_4, **prompts, num_validation_images=3).peaks["drawing pictures"]
    assert six - two == pytest.approx(4 * 0.81 * GB, rel=0.1)


def test_what_lives_at_once_is_counted():
    with LiveBytes() as alive:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second.view(10, 100) * 2
        del second, third
        torch.zeros(500)
    assert (alive.max, alive.now) == (8000, 0)


def typed(suggestions) -> list[str]:
    """The options of suggestions that belong together."""
    return [word for line in suggestions for word in line.split()[3:]]


def test_suggested_options_can_be_typed_and_fit(v1_4, card):
    card(24)
    planned = plan_of(options(v1_4, max_train_steps=9))
    assert planned.needs.peak > 24 * GB
    given = ["--pretrained_model_name_or_path", v1_4, "--train_data_dir", "data"]
    given += ["--max_train_steps", "9", "--mixed_precision", "no"]
    better = plan_of(Config.from_arguments(given + typed(planned.suggestions)))
    assert better.suggestions == ()
    assert better.needs.peak <= 24 * GB
    assert f"{better.needs.peak / GB:.2f} GB" in planned.suggestions[-1]
    assert "too much" in str(planned) and "too much" not in str(better)


def test_the_cheapest_options_are_suggested_first_and_lora_last(v1_4, card, monkeypatch):
    monkeypatch.setattr(memory, "pictures_at_once", lambda shape: 1)
    card(7)
    planned = plan_of(options(v1_4, use_ema=True, max_train_steps=9))
    words = [line.split()[2] for line in planned.suggestions]
    totals = [float(line.split()[0]) for line in planned.suggestions]
    lora = words.index("or")
    assert [flag for flag in typed(planned.suggestions[:lora]) if flag.startswith("--")] == [
        "--mixed_precision",
        "--gradient_checkpointing",
        "--gradient_checkpointing_blocks",
        "--gradient_checkpointing_blocks",
        "--use_8bit_adam",
        "--offload_ema",
    ]
    assert "--method lora" in " ".join(typed(planned.suggestions[lora : lora + 1]))
    for fall in (totals[:lora], totals[lora:]):
        assert fall == sorted(fall, reverse=True)
    assert totals[-1] <= 7


def test_a_smaller_batch_is_suggested_with_as_many_passes_more(v1_4, card, monkeypatch):
    monkeypatch.setattr(memory, "pictures_at_once", lambda shape: 1)
    card(16)
    planned = plan_of(options(v1_4, max_train_steps=9, train_batch_size=24))
    words = typed(planned.suggestions)
    batch = int(words[words.index("--train_batch_size") + 1])
    passes = int(words[words.index("--gradient_accumulation_steps") + 1])
    assert batch * passes == 24


def test_what_nothing_makes_fit_is_said(v1_4, card):
    card(1)
    planned = plan_of(options(v1_4, max_train_steps=9))
    assert planned.suggestions[-1].endswith("lower --resolution")


def test_a_dry_run_tells_what_cards_would_do(v1_4, card, monkeypatch):
    monkeypatch.setattr(memory, "pictures_at_once", lambda shape: 1)
    card(80)
    run = {"train_batch_size": 1, "max_train_steps": 9, "use_ema": True}
    text = str(plan_of(options(v1_4, dry_run=True, **run)))
    lines = text[text.index("cards") : text.index("output")].splitlines()
    assert "8 GB" in lines[0] and "--method lora" in lines[0]
    assert lines[-1].endswith("24 GB  as it is")
    assert "cards" not in str(plan_of(options(v1_4, **run)))


@pytest.mark.parametrize("index", [None, '{"_class_name": "StableDiffusionXLPipeline"}', "{"])
def test_without_configs_the_plan_comes_all_the_same(tmp_path, index):
    folder = tmp_path / "model"
    folder.mkdir()
    if index:
        (folder / "model_index.json").write_text(index)
    planned = plan_of(options(folder, num_train_epochs=2, resolution=64), "cpu")
    assert (planned.steps, planned.needs, planned.suggestions) == (105, None, ())
    assert planned.epochs == pytest.approx(105 * 16 / 833)
    text = " ".join(str(planned).split())
    assert "833 pictures" in text and "steps 105 of 16 pictures: 2.0 epochs" in text
    assert "size 64 px" in text and "configs of the base model cannot be read" in text


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError, IndexError])
def test_an_error_of_ours_is_not_said_to_be_the_models(tiny_model, monkeypatch, error):
    def ours(*_):
        raise error("ours")

    monkeypatch.setattr(memory_trace.MemoryTrace, "_keep", ours)
    with pytest.raises(error, match="ours"):
        plan_of(options(tiny_model), "cpu")
    monkeypatch.undo()
    monkeypatch.setattr(BaseModel, "peaks", ours)
    with pytest.raises(error, match="ours"):
        plan_of(options(tiny_model), "cpu")


def test_an_entry_that_a_table_of_ours_lacks_is_not_said_to_be_the_models(tiny_model, monkeypatch):
    monkeypatch.delitem(OPTIMIZERS, "adamw")
    with pytest.raises(KeyError, match="adamw"):
        plan_of(options(tiny_model), "cpu")


@pytest.mark.parametrize(
    ("part", "config", "reason"),
    [
        ("model_index.json", [], "it is a None"),
        ("model_index.json", {"_class_name": ["odd"]}, "it is a ['odd']"),
        ("unet/config.json", {"down_block_types": ["Nonsense"]}, "ValueError"),
        ("unet/config.json", {"block_out_channels": 7}, "TypeError"),
        ("unet/config.json", {"sample_size": None}, "the UNet's sample_size is None"),
        ("unet/config.json", {"cross_attention_dim": 12}, "its parts do not fit each other"),
        ("unet/config.json", {"norm_num_groups": 0}, "ZeroDivisionError"),
        ("text_encoder/config.json", {"hidden_size": "many"}, ""),
        ("vae/config.json", {"block_out_channels": []}, ""),
        ("vae/config.json", {"latent_channels": -1}, ""),
    ],
)
def test_odd_configs_leave_a_plan_with_the_reason(tiny_model, tmp_path, part, config, reason):
    folder = tmp_path / "odd"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    whole = json.loads((folder / part).read_text())
    (folder / part).write_text(json.dumps(whole | config if isinstance(config, dict) else config))
    planned = plan_of(options(folder, train_text_encoder=True), "cpu")
    assert planned.needs is None
    assert f"configs of the base model cannot be read ({reason}" in str(planned)


def test_what_an_advised_option_does_beside_saving_memory_is_said(v1_4, card, monkeypatch):
    monkeypatch.setattr(planning, "_rungs", lambda *_: [{"optimizer_in_backward": True}])
    card(10)
    planned = plan_of(options(v1_4, max_train_steps=9, train_batch_size=1))
    assert any("--optimizer_in_backward" in line for line in planned.suggestions)
    assert str(planned).count(IN_BACKWARD) == 1
    card(80)
    assert IN_BACKWARD not in str(plan_of(options(v1_4, max_train_steps=9, train_batch_size=1)))


def test_too_small_a_disk_is_found_before_the_start(v1_4, card, room):
    card(80)
    run = options(v1_4, max_train_steps=5000, train_batch_size=1)
    needs = needs_of(v1_4)  # checkpoints of 10.3 GB, a model of 2.1 GB
    room(22)
    with pytest.raises(UserError, match=r"out has 22\.00 GB of disk free.*2 checkpoints 10\.31 GB"):
        plan_of(run)
    room(40)
    warning = "warning: not all of that fits; add --checkpoints_total_limit 2"
    assert planning.disk(run, needs, 5000).endswith(warning)
    assert "warning" not in planning.disk(replace(run, checkpoints_total_limit=2), needs, 5000)
    room(30)  # for two, not for a third that is written before the first goes
    warning = planning.disk(replace(run, checkpoints_total_limit=2), needs, 5000)
    assert warning.endswith("add --checkpoints_total_limit 1")
    room(13)
    assert "warning" not in planning.disk(run, needs, 999)
    with pytest.raises(UserError, match=r"model takes 4\.26 GB"):
        planning.disk(replace(run, held_out=0.1), needs, 999)


def test_checkpoints_that_are_there_already_leave_room_for_the_next(v1_4, card, room, tmp_path):
    card(80)
    room(2)
    run = options(v1_4, output_dir=str(tmp_path), max_train_steps=1000)
    needs = needs_of(v1_4)._replace(checkpoint=10_000, model=2 * GB - 15_000)
    with pytest.raises(UserError):
        planning.disk(run, needs, 1000)
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "weights.safetensors").write_bytes(bytes(10_000))
    assert "20.00 kB the 2 that stay" in planning.disk(run, needs, 1000)


@pytest.mark.parametrize(
    "changed",
    [
        {"use_ema": True},
        {"optimizer": "muon"},
        {"optimizer": "prodigy"},
        {"method": "lora", "save_dtype": "fp16"},
    ],
)
def test_the_disk_holds_what_was_planned(tiny_model, tmp_path, changed):
    AcceleratorState._reset_state(reset_partial_state=True)
    config = config_for(tiny_model, tmp_path, checkpointing_steps=3, **changed)
    train_text_to_image.main(config)
    needs = BaseModel(config).needs(config, 12, "cpu", 1)

    def written(folder: Path) -> int:
        files = folder.rglob("*.safetensors")
        return sum(value.nbytes for file in files for value in load_file(file).values())

    assert written(config.output / "checkpoint-3") == pytest.approx(needs.checkpoint, rel=0.01)
    shutil.rmtree(config.output / "checkpoint-3")
    assert written(config.output) == pytest.approx(needs.model, rel=0.01)


def test_a_plan_leaves_no_trace(v1_4_folder, card):
    card(8)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    plan_of(options(v1_4_folder, mixed_precision="fp16", max_train_steps=9, dry_run=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.is_autocast_enabled("cuda") and not torch.is_autocast_enabled("cpu")
    assert torch.zeros(1).device.type == "cpu"
    assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).grad_fn._saved_mat1.dtype == torch.float32

"""What is said of the options before the start."""

import pytest

from training.config import Config
from training.option_warnings import PARTNERS, notes_on

NEEDED = {"pretrained_model_name_or_path": "model", "train_data_dir": "data"}
# Commands of diffusers' READMEs for LoRA, as they stand there, but for what they learn from.
LORA = """
    --pretrained_model_name_or_path=model --dataset_name=data --caption_column=text
    --resolution=512 --random_flip --train_batch_size=1 --num_train_epochs=100
    --checkpointing_steps=5000 --learning_rate=1e-04 --lr_scheduler=constant --lr_warmup_steps=0
    --seed=42 --output_dir=sd-naruto-model-lora --validation_prompt=dragon --report_to=wandb
"""
SUBJECT_LORA = """
    --pretrained_model_name_or_path=model --instance_data_dir=dog --output_dir=out
    --instance_prompt=dog --resolution=512 --train_batch_size=1 --gradient_accumulation_steps=1
    --checkpointing_steps=100 --learning_rate=1e-4 --report_to=wandb --lr_scheduler=constant
    --lr_warmup_steps=0 --max_train_steps=500 --validation_prompt=dog --validation_epochs=50
    --seed=0
"""


def notes(**options) -> list[str]:
    return notes_on(Config(**NEEDED | options))


def test_usual_options_need_no_word():
    assert notes() == []
    assert notes(validation_prompts=("a", "b"), use_ema=True, ema_decay=0.9, resolution=64) == []
    assert notes(method="lora", rank=8, merge_lora=True) == []
    assert notes(rank=8) == []


@pytest.mark.parametrize(
    ("command", "script"),
    [(LORA, "train_text_to_image_lora.py"), (SUBJECT_LORA, "train_dreambooth_lora.py")],
)
def test_a_command_for_diffusers_script_for_lora_never_trains_the_whole_unet_without_a_word(
    command, script
):
    config = Config.from_arguments(command.split())
    assert config.method == "full"
    (note,) = notes_on(config)
    assert script in note and "all of the UNet learns" in note and "--method lora" in note
    for outright in ("full", "lora"):
        assert notes_on(Config.from_arguments([*command.split(), "--method", outright])) == []


def test_a_command_for_diffusers_dreambooth_is_not_taken_for_lora():
    command = SUBJECT_LORA.replace("--validation_epochs=50", "--validation_steps=50")
    assert notes_on(Config.from_arguments(command.split())) == []


@pytest.mark.parametrize(
    "options",
    [
        {"enable_xformers_memory_efficient_attention": True},
        {"foreach_ema": True},
        {"set_grads_to_none": True},
        {"local_rank": 0},
        {"validation_images": ("a.png",)},
        {"class_labels_conditioning": "timesteps"},
    ],
)
def test_an_option_that_changes_nothing_here_says_so(options):
    (note,) = notes(**options)
    (name,) = options
    assert note.startswith(f"--{name} changes nothing: ")


def test_every_option_that_another_must_accompany_says_so_alone_and_not_with_it():
    values = {
        "rank": 8, "lora_alpha": 2.0, "lora_dropout": 0.1, "lora_target_modules": ("to_q",),
        "merge_lora": True, "class_data_dir": "dogs", "class_prompt": "a dog",
        "prior_prompts": "prompts.txt", "prior_loss_weight": 0.5, "num_class_images": 5,
        "sample_batch_size": 2,
        "prior_generation_precision": "fp32", "ema_decay": 0.5, "offload_ema": True,
        "lr_warmup_steps": 5, "lr_num_cycles": 2, "lr_power": 2.0, "dream_detail_preservation": 0.5,
        "gradient_checkpointing_blocks": "largest", "validation_scorer": "ViT-B-16/openai",
        "num_validation_images": 2, "validation_scheduler": "DDPMScheduler", "hub_model_id": "a/b",
        "hub_token": "hf_x", "validation_captions": 16,
        "validation_keep_prompts": "general", "validation_copies": 16,
        "tracker_project_name": "mine", "logging_dir": "elsewhere",
        "distill_guidance": 2.0, "distill_substeps": 3,
    }  # fmt: skip
    partners = {"with_prior_preservation": {"instance_prompt": "a", "class_prompt": "b"},
                "report_to": "tensorboard", "distill": 4, "validation_prompts": ("a dog",),
                "validation_scorer": {"validation_prompts": ("a dog",),
                                      "validation_scorer": "ViT-B-16/openai"}}  # fmt: skip
    for asked, (_, names) in PARTNERS.items():
        name, _, value = asked.removeprefix("--").partition(" ")
        beside = {name: value or True}
        if isinstance(partners.get(name), dict):
            beside |= partners[name]
        elif name in partners:
            beside[name] = partners[name]
        for each in names:
            alone = notes(method="full", **{each: values[each]})
            assert alone == [f"--{each} does nothing without {asked}."]
            without = {"class_prompt": None} if each == "prior_prompts" else {}
            assert notes(**{"method": "full"} | beside | without | {each: values[each]}) == []
    assert set(values) == {each for _, names in PARTNERS.values() for each in names}


def test_what_clipping_each_gradient_by_itself_means_is_said():
    (note,) = notes(optimizer_in_backward=True)
    assert "--max_grad_norm by itself" in note and "learns something else" in note


def test_where_the_text_encoder_will_come_from_is_said():
    (note,) = notes(skip_save_text_encoder=True)
    assert "from the base model" in note

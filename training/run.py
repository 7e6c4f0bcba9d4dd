"""What every stage of a run shares: its processes, its folder, its log and its manifest."""

import json
import secrets
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import diffusers
import torch
import transformers
from accelerate import Accelerator

from errors import UserError

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "datasets")


class Run:
    """A started run. `id` names it in checkpoints, in run.json and in every picture drawn later."""

    def __init__(self, config, accelerator: Accelerator):
        self.config = config
        self.accelerator = accelerator
        self.device = accelerator.device
        self.is_main = accelerator.is_main_process
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        passes = config.gradient_accumulation_steps * accelerator.num_processes
        self.global_batch = config.train_batch_size * passes  # pictures per optimizer step

    def plan(self, images) -> str:
        """What is going to happen, for the user to read before it does."""
        config = self.config
        steps = config.total_steps(len(images), self.global_batch)
        epochs = steps * self.global_batch / len(images)
        learns = "UNet and text encoder" if config.train_text_encoder else "UNet"
        lines = {
            "base model": config.pretrained_model_name_or_path,
            "data": f"{config.data}, {len(images):,} pictures ({images.fingerprint})",
            "size": f"{config.resolution} px" if config.resolution else "the model's own",
            "learns": f"{learns} ({config.method})",
            "steps": f"{steps:,} of {self.global_batch} pictures: {epochs:.1f} epochs",
            "machine": f"{self.accelerator.num_processes} x {self.device}, "
            f"precision {self.accelerator.mixed_precision}",
            "output": config.output_dir,
        }
        warnings = [f"warning: {warning}" for warning in images.warnings]
        return "\n".join([*(f"{name:12}{value}" for name, value in lines.items()), *warnings])

    def say(self, text: str) -> None:
        """To the terminal, once however many processes there are."""
        if self.is_main:
            print(text, file=sys.stderr, flush=True)

    def log(self, record: dict) -> None:
        """One line of OUTPUT_DIR/log.jsonl."""
        if self.is_main:
            with (self.config.output / "log.jsonl").open("a") as file:
                file.write(json.dumps({"run_id": self.id, **record}) + "\n")

    def manifest(self, latents, steps: int) -> dict:
        """run.json: how the model came to be."""
        return {
            "run_id": self.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "base_model": self.config.pretrained_model_name_or_path,
            "steps": steps,
            "options": self.config.shown,
            "dataset": {"fingerprint": latents.fingerprint, "pictures": len(latents)},
            "versions": {package: version(package) for package in PACKAGES},
            "scores": {},
        }


def start_run(config) -> Run:
    """Processes and folder of the run.

    Raises `UserError` when the folder cannot be written or the machine cannot do the precision:
    found now, not after the last step.
    """
    # Their bars say nothing about the run, and hide ours.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("A CPU cannot train in fp16; choose --mixed_precision bf16 or no.")
    torch.backends.cuda.matmul.allow_tf32 = config.allow_tf32
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        (config.output / "log.jsonl").touch()
    except OSError as error:
        raise UserError(f"{config.output} cannot be written: {error.strerror}.") from error
    return Run(config, accelerator)

"""Fine-tune a Stable Diffusion on captioned images: captioned images -> model folder."""

import sys
from collections.abc import Callable

from errors import exit_with_sentence
from training.config import Config
from training.dataset import CaptionedImages
from training.latents import encode_once
from training.loop import Stopped, train
from training.run import start_run
from training.weights import WEIGHTS, load_model


def main(config: Config) -> None:
    run = start_run(config)
    images = CaptionedImages(config)  # checked here, before any weight is loaded
    run.say(run.plan(images))
    if config.dry_run:
        return
    model = load_model(config, run)
    latents = encode_once(images, model, run)  # after this the VAE leaves the device
    learner = WEIGHTS[config.method](model, config)
    steps = train(learner, latents, config, run, preview=previewer(config))
    if run.is_main:
        learner.save(config.output, run.manifest(latents, steps))
        run.say(f"The model is in {config.output}.")


def previewer(config: Config) -> Callable | None:
    """What the loop calls to draw the validation prompts; None without prompts."""
    if not config.validation_prompts:
        return None
    from generate import Generator, Request

    requests = [Request(prompt, seed=config.seed) for prompt in config.validation_prompts]
    return lambda pipe: Generator(pipe, name=config.output_dir).pictures(requests)


def command() -> None:
    try:
        main(Config.from_arguments(about=__doc__))
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)


if __name__ == "__main__":
    exit_with_sentence(command)

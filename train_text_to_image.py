"""Fine-tune a Stable Diffusion on captioned images: captioned images -> model folder."""

from collections.abc import Callable, Iterable
from contextlib import closing
from statistics import mean

from errors import exit_with_sentence
from training.config import Config
from training.dataset import CaptionedImages
from training.latents import encode_once
from training.loop import train
from training.model import load_model
from training.result import reserve_on_hub, save_model, tell
from training.run import start_run
from training.subject import with_class
from training.weights import WEIGHTS


def main(config: Config) -> None:
    run = start_run(config)
    config = run.config  # with what accelerate adds to the options
    with closing(run), run.memory_advice():
        check_scorer(config)
        images = CaptionedImages(config)  # checked here, before any weight is loaded
        config = run.fit(len(images))
        run.say(run.plan(images))
        if config.dry_run:
            return
        if config.push_to_hub and run.is_main:
            reserve_on_hub(config)
        preview, score = previewer(config, run), scorer(config, run)
        model = load_model(config, run)
        latents = encode_once(images, model, run)  # after this the VAE leaves the device
        if config.with_prior_preservation:
            latents = with_class(latents, model, run, draw=draw)
        learner = WEIGHTS[config.method](model, config)
        with run.interruption:  # signals are noted from here on, until the model is saved
            steps, state = train(learner, latents, config, run, preview, score)
            manifest = save_model(learner, latents, config, run, steps, state)
        tell(learner, latents, config, run, manifest, state, save_colours)


def draw(pipe, prompt: str, seeds: list[int]) -> list:
    """A picture of the prompt for each seed."""
    from generate import Generator, Request

    requests = [Request(prompt, seed=seed) for seed in seeds]
    return list(Generator(pipe, name="class").pictures(requests, batch_size=len(seeds)))


def previewer(config: Config, run) -> Callable | None:
    """What the loop calls to draw the validation prompts; None without prompts."""
    if not config.prompts:
        return None
    from generate import SCHEDULERS, Cancelled, Generator, Request

    how = {"seed": config.seed, "num_images": config.num_validation_images}
    kinds = ((name, kind) for name, (kind, _) in SCHEDULERS.items())
    how["scheduler"] = next(name for name, kind in kinds if kind == config.validation_scheduler)
    requests = [Request(prompt, **how) for prompt in config.prompts]

    def preview(pipe, stop: Callable[[], bool]) -> Iterable:
        # Named as the app names the folder: a picture's settings say what draws it again.
        name = config.output.resolve().name
        generator = Generator(pipe, name=name, run={"run_id": run.id})
        try:
            yield from generator.pictures(requests, on_step=lambda *_: stop())
        except Cancelled:
            return

    return preview


def save_colours(pipe, folder) -> None:
    """Write beside the model how its latents become the app's previews."""
    from serving.preview import Preview

    Preview.fitted(pipe.vae).save(folder)


def check_scorer(config: Config) -> None:
    """Raise UserError for a --validation_scorer that is unknown, before anything is read."""
    if config.validation_scorer is not None:
        from scoring.scorer import check_name

        check_name(config.validation_scorer)


def scorer(config: Config, run) -> Callable | None:
    """Mean CLIP score of pictures against their prompts; None without --validation_scorer."""
    if config.validation_scorer is None:
        return None
    from scoring.scorer import Scorer

    clip = Scorer.load(config.validation_scorer, device=str(run.device))

    return lambda pictures: mean(
        clip.score(each.image, each.prompt) for each in pictures if each.problem is None
    )


if __name__ == "__main__":
    exit_with_sentence(lambda: main(Config.from_arguments(about=__doc__)))

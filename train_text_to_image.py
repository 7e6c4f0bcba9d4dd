"""Fine-tune a Stable Diffusion on captioned images: captioned images -> model folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import exit_with_sentence
from training.config import Config, check_data_folder

# Packages are imported where they are used: torch alone takes seconds, and --help needs none.
if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from evaluation.during_training import ValidationVerdict
    from evaluation.validation_prompts import ValidationPrompts
    from sampling.image import Picture
    from training.dataset import CaptionedImages
    from training.plan import Plan
    from training.run import Run
    from training.subject import TrainingLatents
    from training.validation import Preview


def main(config: Config) -> None:
    check_data_folder(config)
    from training.dataset import CaptionedImages
    from training.encode import encode_once
    from training.final_save import reserve_on_hub, save_model, write_extras
    from training.loop import train
    from training.model import load_model
    from training.run import start_run
    from training.subject import with_class
    from training.weights import WEIGHTS

    run = start_run(config)
    config = run.config  # with what accelerate adds to the options
    with run, run.memory_advice():
        check_scorer(config)
        check_prior(config)
        images = CaptionedImages(config)  # checked here, before any weight is loaded
        config = run.fit(len(images))
        plan = run.plan(images)
        run.say(str(plan))
        if config.dry_run:
            return tell_time(config, run, images, plan)
        if config.push_to_hub and run.is_main:
            reserve_on_hub(config)
        prompts = prompts_of_validations(config, images)
        preview, score = previewer(config, run, prompts), scorer(config, run, images, prompts)
        model = load_model(config, run)
        encoded = encode_once(images, model, run)  # after this the VAE leaves the device
        latents: TrainingLatents = encoded
        if config.with_prior_preservation:
            latents = with_class(encoded, model, run, draw=draw)
        learner = WEIGHTS[config.method](model, config)
        with run.interruption:  # signals are noted from here on, until the model is saved
            steps, state = train(learner, latents, config, run, preview, score)
            manifest = save_model(learner, latents, config, run, steps, state)
        write_extras(learner, latents, config, run, manifest, state, save_preview_colours)


def tell_time(config: Config, run: Run, images: CaptionedImages, plan: Plan) -> None:
    """Say how long the run will take, with --timed_steps, and write the plan to --plan_file."""
    took = None
    if config.timed_steps:
        from training.timing import timing, without_traces

        took = timing(without_traces(config), run, images, plan.steps)
        run.say(f"{'time':12}{took}")
    if config.plan_file:
        plan.write(Path(config.plan_file), took)


def check_prior(config: Config) -> None:
    """Raise UserError for --prior_prompts that cannot be read or drawn."""
    if config.prior_prompts:
        from evaluation.prompts import PromptSet, drawable
        from training.subject import prior_prompts

        drawable(PromptSet(config.prior_prompts, tuple(prior_prompts(config))))


def draw(pipe: StableDiffusionPipeline, prompts: list[str], seeds: list[int]) -> list[Picture]:
    """A picture for each prompt and its seed."""
    from sampling.generator import Generator
    from sampling.request import Request

    requests = [
        Request(prompt, seed=seed, prompt_weights=False)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    return list(Generator(pipe, name="class").pictures(requests, batch_size=len(seeds)))


def prompts_of_validations(config: Config, images: CaptionedImages) -> list[ValidationPrompts]:
    """The prompts that every validation draws, and the captions among them."""
    from evaluation.validation_prompts import validation_sets

    parts = [[texts[0] for texts in each.captions] for each in (images, images.held_out) if each]
    return validation_sets(config, *parts)


def previewer(config: Config, run: Run, prompts: list[ValidationPrompts]) -> Preview | None:
    """What draws the prompts of a validation; None without prompts."""
    if not prompts:
        return None
    from sampling.generator import Generator
    from sampling.request import SCHEDULERS, SEEDS, Cancelled, Request

    kinds = ((name, kind) for name, (kind, _) in SCHEDULERS.items())
    scheduler = next(name for name, kind in kinds if kind == config.validation_scheduler)
    settings = config.draws or {"scheduler": scheduler}
    settings |= {"prompt_weights": False}  # as in captions
    requests = {
        each.place: [
            Request(prompt, seed=seed % SEEDS, num_images=each.images, **settings)
            for prompt, seed in zip(each.prompts, each.seeds(config.seed), strict=True)
        ]
        for each in prompts
    }

    def preview(
        pipe: StableDiffusionPipeline, stop: Callable[[], bool]
    ) -> Iterable[tuple[str, Picture]]:
        # Named as the app names the folder: a picture's settings say what draws it again.
        name = config.output.resolve().name
        generator = Generator(pipe, name=name, run={"run_id": run.id})
        try:
            for place, several in requests.items():
                for picture in generator.pictures(several, on_step=lambda *_: stop()):
                    yield place, picture
        except Cancelled:
            return

    return preview


def save_preview_colours(pipe: Any, folder: Path) -> None:
    """Write beside the model how its latents become the app's previews."""
    from sampling.preview import Preview

    Preview.fitted(pipe.vae).save(folder)


def check_scorer(config: Config) -> None:
    """Raise UserError for an unknown --validation_scorer or --validation_keep_prompts, before
    anything is read."""
    if config.validation_scorer is not None:
        from evaluation.clip_score import check_name
        from evaluation.validation_prompts import validation_sets

        check_name(config.validation_scorer)
        validation_sets(config)


def scorer(
    config: Config, run: Run, images: CaptionedImages, prompts: list[ValidationPrompts]
) -> ValidationVerdict | None:
    """What scores the pictures of a validation; None without --validation_scorer."""
    if config.validation_scorer is None:
        return None
    from evaluation.clip_score import Scorer
    from evaluation.during_training import ValidationVerdict
    from evaluation.reference_images import CaptionedImage

    def training() -> list[CaptionedImage]:
        return [
            CaptionedImage(images.names[i], images.captions[i][0], partial(images.image, i))
            for i in range(len(images))
        ]

    steps = config.total_steps(len(images), run.global_batch)
    return ValidationVerdict(
        Scorer.load(config.validation_scorer, device=str(run.device)), prompts,
        config.output / "validation", Path(config.pretrained_model_name_or_path).name,
        -(-steps // config.steps_between_validations(len(images), run.global_batch)), training,
    )  # fmt: skip


if __name__ == "__main__":
    exit_with_sentence(lambda: main(Config.from_arguments(about=__doc__)))

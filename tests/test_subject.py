"""DreamBooth: a subject under one prompt, and pictures of its class, which stays as it was."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from runs import config_for, fresh_run, write_pictures

from core.errors import UserError
from training.config import Config
from training.dataset import CaptionedImages
from training.encode import encode_once
from training.loop import accumulate, train
from training.model import load_model
from training.objective import Objective
from training.subject import class_images, precision_of_drawing, with_class
from training.weights import WEIGHTS

PROMPTS = {"instance_prompt": "a sks creature", "class_prompt": "a creature"}


class Drawn:
    """A picture that saves itself, plain and of a colour that depends on its seed."""

    def __init__(self, seed: int):
        self.image = Image.new("RGB", (32, 32), (seed * 20, 99, 99))

    def save(self, path) -> None:
        self.image.save(path)


def draw(pipe, prompts, seeds):
    return [Drawn(seed) for _, seed in zip(prompts, seeds, strict=True)]


@pytest.fixture
def subject(tiny_model, tmp_path):
    """`subject(**options)`: the options of a DreamBooth run on 5 pictures without captions."""
    folder = write_pictures(tmp_path / "subject", count=5)
    (folder / "metadata.jsonl").unlink()

    def options(**more) -> Config:
        usual = {"train_data_dir": None, "instance_data_dir": str(folder), "train_batch_size": 2}
        usual |= {"num_class_images": 3} | PROMPTS
        return config_for(tiny_model, tmp_path, **(usual | more))

    return options


def learning(config):
    """Run, learner and latents of a DreamBooth run."""
    run = fresh_run(config)
    images = CaptionedImages(config)
    pipe = load_model(config, run)
    latents = encode_once(images, pipe, run)
    if config.with_prior_preservation:
        latents = with_class(latents, pipe, run, draw)
    return run, WEIGHTS[config.method](pipe, config), latents


def test_every_picture_of_the_subject_has_the_instance_prompt_and_it_is_never_dropped(subject):
    config = subject()
    images = CaptionedImages(config)
    assert images.captions == [("a sks creature",)] * 5
    assert config.empty_captions == 0
    assert replace(config, caption_dropout=0.2).empty_captions == 0.2


def test_an_instance_prompt_stands_in_for_the_captions_of_a_data_set(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, instance_prompt="a sks creature")
    assert CaptionedImages(config).captions == [("a sks creature",)] * 12


def test_missing_class_pictures_are_drawn_each_from_its_own_seed(subject, tmp_path):
    config = subject(with_prior_preservation=True, sample_batch_size=2)
    drawn = []

    def counted(pipe, prompts, seeds):
        assert set(prompts) == {"a creature"}
        drawn.extend(seeds)
        return draw(pipe, prompts, seeds)

    run = fresh_run(config)
    pipe = load_model(config, run)
    assert len(class_images(config, pipe, run, counted)) == 3
    assert drawn == [0, 1, 2]
    (tmp_path / "out" / "class" / "class-00001.png").unlink()  # as if the run had been killed
    images = class_images(config, pipe, run, counted)
    assert drawn == [0, 1, 2, 1]
    assert images.captions == [("a creature",)] * 3


def test_own_class_pictures_count_and_only_the_rest_is_drawn(subject, tmp_path):
    folder = write_pictures(tmp_path / "class", count=2)
    config = subject(with_prior_preservation=True, class_data_dir=str(folder))
    run = fresh_run(config)
    assert len(class_images(config, load_model(config, run), run, draw)) == 3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_each_step_learns_from_as_many_of_both(subject, method):
    config = subject(with_prior_preservation=True, method=method, max_train_steps=2)
    run, learner, latents = learning(config)
    names = latents.names(0, 2)
    assert [name.startswith("class-") for name in names] == [False, True, False, True]
    batch = latents.batch(0, 2)
    assert batch["x_0"].shape == (4, 4, 4, 4)
    assert torch.equal(batch["prompt"][0], batch["prompt"][2])
    assert not torch.equal(batch["prompt"][0], batch["prompt"][1])
    before = {name: weight.detach().clone() for name, weight in learner.weights.items()}
    train(learner, latents, config, run)
    assert any(not torch.equal(weight, before[name]) for name, weight in learner.weights.items())


def test_the_loss_is_that_of_the_subject_plus_the_weighted_one_of_the_class(subject):
    config = subject(with_prior_preservation=True, prior_loss_weight=0.25)
    run, learner, latents = learning(config)
    objective = Objective(learner.pipe.scheduler, config, run.device)
    batch = latents.batch(0, 2)
    batch["eps"], batch["t"] = objective.draw(0, batch["x_0"].shape)
    weighted = accumulate(learner, batch, latents, objective, config, run)
    plain = accumulate(learner, batch | {"weight": torch.ones(4)}, latents, objective, config, run)
    torch.testing.assert_close(weighted[::2], plain[::2])
    torch.testing.assert_close(weighted[1::2], 0.25 * plain[1::2])


@pytest.mark.parametrize(
    ("name", "half"), [("fp32", None), ("no", None), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_the_class_is_drawn_in_the_precision_that_is_asked_for(subject, name, half):
    config = subject(with_prior_preservation=True, prior_generation_precision=name)
    run = fresh_run(config)
    pipe, found = load_model(config, run), []

    def looked(pipe, prompts, seeds):
        product = torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1))
        found.append(str(product.dtype))
        return draw(pipe, prompts, seeds)

    class_images(config, pipe, run, looked)
    assert set(found) == {f"torch.{half or 'float32'}"}


def test_unset_the_class_is_drawn_in_the_precision_of_training(subject):
    config = subject(with_prior_preservation=True, mixed_precision="bf16")
    with precision_of_drawing(fresh_run(config)):
        assert torch.ones(1, 1).mm(torch.ones(1, 1)).dtype == torch.bfloat16


@pytest.fixture
def style(tiny_model, tmp_path):
    """`style(**options)`: the options of a run on captioned pictures that rehearses two prompts."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na red house\n")

    def options(**more) -> Config:
        usual = {"with_prior_preservation": True, "prior_prompts": str(prompts)}
        return config_for(tiny_model, tmp_path, **(usual | {"num_class_images": 5} | more))

    return options


def test_prior_prompts_are_drawn_in_turn_and_keep_their_captions(style, tmp_path):
    config, drawn = style(sample_batch_size=2), []

    def counted(pipe, prompts, seeds):
        drawn.extend(zip(prompts, seeds, strict=True))
        return draw(pipe, prompts, seeds)

    run = fresh_run(config)
    pipe = load_model(config, run)
    images = class_images(config, pipe, run, counted)
    assert drawn == [(("a fox", "a red house")[seed % 2], seed) for seed in range(5)]
    assert images.captions == [("a fox",), ("a red house",)] * 2 + [("a fox",)]
    (tmp_path / "out" / "class" / "class-00003.png").unlink()  # as if the run had been killed
    assert class_images(config, pipe, run, counted).captions == images.captions
    assert drawn[5:] == [("a red house", 3)]


def test_own_pictures_with_captions_can_be_rehearsed(style, tmp_path):
    folder = write_pictures(tmp_path / "own", count=5)
    config = style(class_data_dir=str(folder))
    run = fresh_run(config)
    images = class_images(config, load_model(config, run), run, draw)
    assert len(images) == 5 and images.captions == CaptionedImages(config).captions[:5]


def test_each_step_learns_as_many_rehearsed_pictures_with_captions_of_their_own(style):
    _, _, latents = learning(style(train_batch_size=2))
    names = latents.names(0, 2)
    assert [name.startswith("class-") for name in names] == [False, True] * 2
    assert {text for several in latents.of_class.images.captions for text in several} == {
        "a fox", "a red house"
    }  # fmt: skip


def test_a_class_of_fewer_pictures_than_a_batch_is_gone_through_again(subject):
    config = subject(with_prior_preservation=True, num_class_images=1, train_batch_size=4)
    _, _, latents = learning(config)
    names = latents.names(0, 4)
    assert names[1::2] == ["class-00000.png"] * 4 and len(set(names[::2])) == 4


def test_a_subject_of_other_shapes_than_its_class_is_refused_before_that_is_drawn(
    subject, tmp_path
):
    shapes = {"with_prior_preservation": True, "aspect_ratio_buckets": True}
    learning(subject(**shapes))  # all square
    Image.new("RGB", (90, 30)).save(tmp_path / "subject" / "wide.png")
    with pytest.raises(UserError, match="leave out --aspect_ratio_buckets, or --with_prior"):
        learning(subject(**shapes, class_data_dir=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_passes_and_batches_share_the_pairs_alike(subject, tmp_path):
    once = subject(
        with_prior_preservation=True, num_class_images=5, train_batch_size=4, max_train_steps=1
    )
    twice = replace(
        once, train_batch_size=2, gradient_accumulation_steps=2, output_dir=str(tmp_path / "two"),
        class_data_dir=str(tmp_path / "out" / "class"),
    )  # fmt: skip
    weights = []
    for config in (once, twice):
        run, learner, latents = learning(config)
        train(learner, latents, config, run)
        weights.append(learner.weights)
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"instance_prompt": None}, "add --instance_prompt WORDS"),
        ({"instance_prompt": " "}, "add --instance_prompt WORDS"),
        ({"with_prior_preservation": True, "class_prompt": None}, "and --class_prompt"),
        ({"prior_prompts": "a.txt"}, "leave one out"),
        ({"instance_data_dir": "nowhere"}, "The picture folder nowhere does not exist"),
    ],
)
def test_what_is_missing_is_named(subject, options, sentence):
    with pytest.raises(UserError, match=sentence):
        CaptionedImages(subject(**options))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "Give a file of prompts"), ("a fox\n" + "x" * 9_000, r"prompts.txt, prompt 2: ")],
)
def test_prior_prompts_that_cannot_be_drawn_are_refused_before_a_model_is_opened(
    style, tmp_path, monkeypatch, text, sentence
):
    import train_text_to_image

    config, file = style(), tmp_path / "prompts.txt"
    if text:
        file.write_text(text)
    else:
        file.unlink()
    monkeypatch.setattr("training.model.load_model", lambda *_: pytest.fail("a model was opened"))
    with pytest.raises(UserError, match=sentence):
        train_text_to_image.main(config)

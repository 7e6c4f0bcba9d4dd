"""Weights in prompts: read as in AUTOMATIC1111, and only where they are meant."""

import json
import time

import diffusers
import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from PIL import Image
from runs import config_for

import train_text_to_image
from core.errors import UserError
from evaluation.options import common_request, parse_options
from evaluation.prompts import can_be_drawn
from evaluation.validation_prompts import validation_sets
from sampling.generator import Generator
from sampling.image_metadata import request_of
from sampling.prompt import escaped, has_marks, parts_of, words_of
from sampling.request import Request
from webapp.ui.permalink import link_to, linked

A1111 = {  # the examples of its own documentation, and how it reads what they leave open
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1), ("hill", 0.55),
        (", sun, ", 1.1), ("sky", 1.4641), (".", 1.1),
    ],
    "[word]": [("word", 1 / 1.1)],
    "[[word]]": [("word", 1 / 1.21)],
    "((word))": [("word", 1.21)],
    "(word : 1.2 )": [("word ", 1.2)],
    "(word:-.5)": [("word", -0.5)],
    "(word:+2)": [("word", 2.0)],
    "(a:b)": [("a:b", 1.1)],
    "[word:1.2]": [("word:1.2", 1 / 1.1)],
    "word:1.2) and ]": [("word:1.2) and ]", 1.0)],
    "([a)b]": [("a", 1.0), ("b", 1 / 1.1)],
    r"(\(a\):1.5) \\ b\c": [("(a)", 1.5), (r" \ bc", 1.0)],
    "()": [("", 1.0)],
}  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_pipeline(), name="tiny")


def drawn(generator: Generator, *requests: Request, **options) -> list[np.ndarray]:
    return [np.asarray(p.image).astype(int) for p in generator.pictures(requests, **options)]


def quick(prompt: str, **options) -> Request:
    return Request(prompt, **{"steps": 3, "seed": 7} | options)


@pytest.mark.parametrize("prompt", A1111)
def test_brackets_are_read_as_automatic1111_reads_them(prompt):
    found, known = parts_of(prompt), A1111[prompt]
    assert [text for text, _ in found] == [text for text, _ in known]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in known])


@pytest.mark.parametrize("prompt", ["AC\\DC: a 1:1 copy", "", " a  b\n", "BREAK AND :1.2"])
def test_a_prompt_without_brackets_is_read_as_it_stands(prompt):
    assert parts_of(prompt) == [(prompt, 1.0)] and not has_marks(prompt)


@pytest.mark.parametrize(
    "text", ["a cat (sitting) [here]", r"\(", "plain", "a\\b", "(((", "\\[]\\"]
)
def test_escaped_words_are_read_as_they_stood(text):
    assert parts_of(escaped(text)) == [(text, 1.0)]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("(a:1.2.3)", "weight ':1.2.3\\)' in the prompt is no number"),
        ("a (big:11) cat", "'big' in the prompt has the weight 11\\. Give one from -10 to 10"),
        ("(a:-99)", "weight -99"),
        ("(" * 1000 + "a", "weight 2.47e\\+41"),
        ("(a:" + "9" * 400 + ")", "weight inf"),
    ],
)
def test_a_weight_that_cannot_be_meant_is_a_sentence(prompt, words):
    for field in ({"prompt": prompt}, {"prompt": "a", "negative_prompt": prompt}):
        with pytest.raises(UserError, match=words) as refused:
            Request(**field)
        assert len(str(refused.value)) < 200
    assert Request(prompt, prompt_weights=False).words == prompt


def test_the_longest_prompt_is_read_in_little_time():
    started = time.process_time()
    for prompt in ("(a" * 500 + ")" * 500 + "[b]" * 166, "[" * 2000, "(:1)" * 500, "\\(" * 1000):
        has_marks(prompt[:2000])
    assert time.process_time() - started < 5


def reference(generator: Generator, parts, negative) -> list[torch.Tensor]:
    """What AUTOMATIC1111 makes of prompts: each part into tokens by itself, then scaled."""
    pipe, made = generator.pipe, []
    for each in (parts, negative):
        ids, weights = [pipe.tokenizer.bos_token_id], [1.0]
        for text, weight in each:
            tokens = pipe.tokenizer(text, add_special_tokens=False).input_ids
            ids += tokens
            weights += [weight] * len(tokens)
        ids, weights = ids[:76], weights[:76]
        ids += [pipe.tokenizer.eos_token_id]
        ids += [pipe.tokenizer.pad_token_id] * (77 - len(ids))
        weights += [1.0] * (77 - len(weights))
        with torch.no_grad():
            z = pipe.text_encoder(torch.tensor([ids]))[0]
        before = z.mean()
        z = z * torch.tensor(weights).reshape(1, 77, 1)
        made.append(z * (before / z.mean()))
    return made


LONG = "(" + "a" * 70 + ":1.3) (bcdefgh:0.5) [tail]"  # beyond the 75 tokens that are read


@pytest.mark.parametrize("prompt", ["a (red:1.4)cat", "[a] ((dog)), (sun:0.2)", LONG])
def test_a_weighted_picture_is_the_one_that_automatic1111s_embeddings_give(generator, prompt):
    embeddings, negative = reference(generator, parts_of(prompt), parts_of("(blur:1.5), noise"))
    pipe = diffusers.StableDiffusionPipeline(**generator.pipe.components, requires_safety_checker=0)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = generator.denoiser._scheduler(quick(prompt))
    theirs = pipe(
        prompt_embeds=embeddings,
        negative_prompt_embeds=negative,
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=torch.Generator("cpu").manual_seed(7),
    ).images[0]
    (ours,) = drawn(generator, quick(prompt, negative_prompt="(blur:1.5), noise"))
    assert np.abs(ours - np.asarray(theirs)).max() <= 1
    (plain,) = drawn(generator, quick(words_of(parts_of(prompt)), negative_prompt="blur, noise"))
    assert np.abs(ours - plain).max() > 1


@pytest.mark.parametrize("prompt", ["a cat, sitting", "AC\\DC: 1", r"a cat \(sitting\)", "(cat:1)"])
def test_a_prompt_without_weights_gives_the_bits_that_it_gave_before(generator, prompt):
    words = words_of(parts_of(prompt))
    (read,) = drawn(generator, quick(prompt))
    (as_it_stands,) = drawn(generator, quick(words, prompt_weights=False))
    assert (read == as_it_stands).all()


def test_where_weights_are_switched_off_brackets_are_words(generator):
    on, off = (quick("a (cat) [x]", prompt_weights=switch) for switch in (True, False))
    assert (on.words, off.words) == ("a  cat   x", "a (cat) [x]")
    first, second = drawn(generator, on, off)
    assert np.abs(first - second).max() > 1


def test_a_weighted_picture_does_not_depend_on_what_is_drawn_beside_it(generator):
    requests = [quick("a (cat:1.5)"), quick("a dog"), quick("(((a)))", negative_prompt="[b]")]
    together, alone = drawn(generator, *requests), drawn(generator, *requests, batch_size=1)
    assert max(np.abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


def test_a_picture_keeps_its_prompt_as_typed_and_is_drawn_again_from_its_metadata(
    generator, tmp_path
):
    for number, switch in enumerate((True, False)):
        path = tmp_path / f"{number}.png"
        request = quick("a (cat:1.3)", negative_prompt="[b]", prompt_weights=switch)
        (picture,) = generator.pictures([request])
        picture.save(path)
        with Image.open(path) as png:
            assert json.loads(png.text["sd-pokemon"])["prompt"] == "a (cat:1.3)"
            # Others read brackets as weights whatever was done here.
            written = png.text["parameters"].splitlines()[:2]
        assert written == (
            ["a (cat:1.3)", "Negative prompt: [b]"]
            if switch
            else [r"a \(cat:1.3\)", r"Negative prompt: \[b\]"]
        )
        (again,) = drawn(generator, request_of(path.read_bytes()))
        assert (again == np.asarray(picture.image)).all()


@pytest.mark.parametrize("prompt", ["a cat", "a (cat)"])
@pytest.mark.parametrize("switch", [True, False])
def test_a_link_says_whether_weights_are_read(prompt, switch):
    request = Request(prompt, prompt_weights=switch)
    assert linked(link_to(request)).words == request.words


def test_pictures_and_links_from_before_there_were_weights_draw_what_they_drew(tmp_path):
    assert linked("?prompt=a+cat+(sitting)&seed=7").words == "a cat (sitting)"
    assert linked("?prompt=a+cat&seed=7").prompt_weights
    assert linked("?prompt=(cat)&prompt_weights=true").words == "cat"
    with pytest.raises(UserError, match="prompt_weights is 'perhaps'\\. Give true or false"):
        linked("?prompt=(cat)&prompt_weights=perhaps")


@pytest.mark.parametrize("value", [None, 1, "true", [True]])
def test_the_switch_is_true_or_false(value):
    with pytest.raises(UserError, match=r"prompt_weights is .* Give true or false\."):
        Request("a", prompt_weights=value)


def test_captions_are_asked_as_they_stand(tiny_model, tmp_path, monkeypatch):
    options = parse_options(["--model", "any"])
    assert not common_request(options).prompt_weights
    assert can_be_drawn("a (cat:99)")  # no weight, but a caption
    asked = []

    class Asked:
        def __init__(self, *_, **__):
            pass

        def pictures(self, requests, **_):
            asked.extend(requests)
            return []

    monkeypatch.setattr("sampling.generator.Generator", Asked)
    train_text_to_image.draw(None, ["a (cat:99)"] * 2, [1, 2])
    config = config_for(tiny_model, tmp_path, validation_prompts=("a (cat:99)",))
    run = type("Run", (), {"id": "any"})
    looked_at = validation_sets(config)
    list(train_text_to_image.previewer(config, run, looked_at)(None, lambda: False))
    assert [request.words for request in asked] == ["a (cat:99)"] * 3

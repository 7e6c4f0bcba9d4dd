"""Back ends draw the pictures of PyTorch: a stand-in always, the real ones where installed."""

import copy
import json
import os
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

import generate
from core.errors import UserError
from core.tensor_names import LORA_FILE, hub_name
from sampling import networks
from sampling.backends import cache, choice, compilation
from sampling.backends.cache import ConversionCache, version_of
from sampling.backends.choice import BACKENDS, BackEnd, check_backend, chosen
from sampling.backends.formats import FORMATS, Format
from sampling.backends.parts import drawing_parts
from sampling.generator import Generator
from sampling.image import Picture
from sampling.init_image import InitImage
from sampling.lazy_generators import LazyGenerator, OpeningGenerator
from sampling.pipeline import open_pipeline
from sampling.request import SCHEDULERS, Cancelled, Request

CLOSE = 1  # of 255, on average over a picture


class StandIn:
    """A back end that computes with copies of PyTorch's modules, and notes what it is asked for."""

    def __init__(self):
        self.modules: list[torch.nn.Module] = []  # one for each conversion
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.lasts: dict[str, int] = {}  # calls of a network, and then it fails
        self.go = threading.Event()
        self.go.set()
        self.lock = threading.Lock()

    def write(self, part, folder: Path) -> None:
        assert self.go.wait(60), "held for too long"
        if self.error:
            raise self.error
        self.modules.append(copy.deepcopy(part.module))
        (folder / "model.fake").write_text(f"{len(self.modules) - 1:9}{part.name}")

    def open(self, file: Path):
        text = file.read_text()
        number, name = int(text[:9]), text[9:]

        def network(inputs):
            self.calls.append(name)
            if self.calls.count(name) > self.lasts.get(name, 10**6):
                raise RuntimeError("primitive not implemented")
            with self.lock, torch.no_grad():
                found = self.modules[number](*map(torch.from_numpy, inputs.values()))
            outputs = found if isinstance(found, tuple) else (found,)
            return [output.numpy() for output in outputs]

        return network


class Threaded:
    """Has a stand-in convert in this process."""

    def __init__(self, stand_in: StandIn):
        self._stand_in, self._stopped = stand_in, False

    def __call__(self, part, folder: Path) -> None:
        assert self._stand_in.go.wait(60), "held for too long"
        if self._stopped:
            raise RuntimeError("it was stopped")
        self._stand_in.write(part, folder)

    def stop(self) -> None:
        self._stopped = True
        self._stand_in.go.set()

    def close(self) -> None:
        return


@pytest.fixture
def stand_in(monkeypatch, tmp_path) -> StandIn:
    """The only back end that is installed."""
    made = StandIn()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    for name in reversed(list(BACKENDS)):  # undone in the order in which they stood
        monkeypatch.delitem(BACKENDS, name)
    monkeypatch.setitem(BACKENDS, "fake", BackEnd("Fake", ("torch",), "fast"))
    monkeypatch.setitem(FORMATS, "fake", Format("model.fake", "none", made.write, made.open))
    monkeypatch.setattr(compilation, "Converter", lambda backend: Threaded(made))
    return made


@pytest.fixture(scope="module", params=["fake", *BACKENDS])
def backend(request, tmp_path_factory):
    """A back end; conversions are kept for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))
        if request.param == "fake":
            made = StandIn()
            patch.setitem(BACKENDS, "fake", BackEnd("Fake", ("torch",), "fast"))
            patch.setitem(FORMATS, "fake", Format("model.fake", "none", made.write, made.open))
        elif missing := BACKENDS[request.param].missing:
            pytest.skip(f"needs pip install {' '.join(missing)}")
        yield request.param


@pytest.fixture(scope="module")
def pair(backend, tiny_model) -> tuple[Generator, Generator]:
    """A model by PyTorch, and by the back end."""
    return tuple(Generator.load(tiny_model, device="cpu", backend=b) for b in ("torch", backend))


def draw(generator: Generator, *requests: Request, **options) -> list[Picture]:
    return list(generator.pictures(requests, **options))


def off_by(ours: Picture, theirs: Picture) -> float:
    a, b = (np.asarray(each.image, float) for each in (ours, theirs))
    assert a.shape == b.shape
    return float(np.abs(a - b).mean())


def assert_alike(pair, *requests: Request, **options) -> None:
    for right, ours in zip(*(draw(each, *requests, **options) for each in pair), strict=True):
        assert off_by(right, ours) < CLOSE
        assert right.settings["backend"] == "torch" != ours.settings["backend"]


# The same pictures


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_picture_is_pytorchs_by_every_scheduler(pair, scheduler):
    assert_alike(pair, Request("a red creature", "blur", seed=7, steps=4, scheduler=scheduler))


@pytest.mark.parametrize(("width", "height"), [(32, 32), (40, 72), (104, 32)])
def test_a_picture_is_pytorchs_at_every_size_and_in_every_batch(pair, width, height):
    sizes = {"width": width, "height": height}
    assert_alike(pair, Request("a cat", seed=1, steps=3, num_images=3, **sizes), batch_size=2)
    assert_alike(pair, Request("(a cat:1.3)", seed=1, steps=3, guidance_scale=1, **sizes))


def test_a_picture_that_starts_from_another_is_pytorchs(pair, tmp_path):
    Image.linear_gradient("L").convert("RGB").resize((32, 32)).save(tmp_path / "a.png")
    start = InitImage.from_file(str(tmp_path / "a.png"))
    assert_alike(pair, Request("a cat", seed=1, steps=6, init_image=start, strength=0.5))


def test_drawings_that_share_their_steps_are_pytorchs(pair):
    mixed = [
        Request("a red cat", seed=1, steps=3, num_images=2),
        Request("a dog", "blur", seed=2, steps=5, guidance_scale=2.5, scheduler="Euler a"),
        Request("a cow", seed=3, steps=4, guidance_scale=1, scheduler="DPM++ 2M Karras"),
    ]
    expected = [draw(pair[0], request) for request in mixed]
    for right, ours in zip(expected, side_by_side(pair[1], mixed), strict=True):
        assert all(off_by(a, b) < CLOSE for a, b in zip(right, ours, strict=True))


def test_a_picture_whose_deep_features_are_used_again_is_pytorchs(pair):
    asked = Request("a cat", seed=1, steps=5, num_images=2, cache_interval=2, guidance_stop=0.5)
    assert_alike(pair, asked, replace(asked, width=40, height=72, num_images=1))


def with_a_unet_like_v1_4(folder: Path) -> str:
    """The tiny model with the blocks of Stable Diffusion v1-4: attention in the last one, too, and
    `attention_head_dim` that is the number of heads."""
    pipe = tiny_pipeline()
    torch.manual_seed(1)
    pipe.unet = UNet2DConditionModel(
        sample_size=pipe.unet.config.sample_size,
        block_out_channels=(16, 32, 32, 32),
        layers_per_block=2,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        norm_num_groups=4,
        attention_head_dim=8,
        cross_attention_dim=16,
    )
    pipe.save_pretrained(folder)
    return str(folder)


def test_a_model_of_the_blocks_of_v1_4_draws_pytorchs_pictures(backend, tmp_path):
    model = with_a_unet_like_v1_4(tmp_path / "v1-4")
    pair = [Generator.load(model, device="cpu", backend=each) for each in ("torch", backend)]
    attention = pair[0].pipe.unet.up_blocks[-1].attentions[-1].transformer_blocks[0].attn2
    assert attention.heads == 8
    asked = Request("a cat", seed=1, steps=4, num_images=2)
    for interval in (1, 2):
        assert_alike(pair, replace(asked, cache_interval=interval))
    assert_alike(pair, replace(asked, cache_interval=2, width=40, height=72, guidance_stop=0.5))


def side_by_side(generator: Generator, requests) -> list[list[Picture]]:
    under_way = [generator.denoising_events([request]) for request in requests]
    pictures: list[list[Picture]] = [[] for _ in requests]
    while True:
        wanting = []
        for place, events in enumerate(under_way):
            for event in events:
                if not isinstance(event, Picture):
                    wanting.append(event)
                    break
                pictures[place].append(event)
        if not wanting:
            return pictures
        generator.step(wanting)


def test_previews_stages_and_calling_off_work(pair, monkeypatch):
    monkeypatch.setattr("sampling.generator.PREVIEW_SECONDS", 0)
    seen: list[list] = []
    draw(pair[1], Request("a cat", seed=1, steps=3), on_preview=seen.append)
    assert len(seen) == 3
    stages = list(pair[1].stages(Request("a cat", seed=1, steps=4), 3))
    assert [stage.settings["done"] for stage in stages] == [0, 2, 4]
    with pytest.raises(Cancelled):
        draw(pair[1], Request("a cat", steps=9), on_step=lambda done, total: done == 2)


def test_openvino_tells_nobody_of_its_conversions(pair, backend):
    if backend == "openvino":
        assert sys.modules["openvino_telemetry"] is None


# LoRA


def with_lora(folder: Path, base: str) -> str:
    """A LoRA of random numbers on the base, its text encoder included."""
    folder.mkdir()
    torch.manual_seed(3)
    pipe, tensors = open_pipeline(base, "cpu", "fp32"), {}
    for part, learned, lora in (
        ("unet", ("attn1.to_q", "attn2.to_k", "attn2.to_v"), "lora"),
        ("text_encoder", ("q_proj", "v_proj"), "lora_linear_layer"),
    ):
        for name, module in getattr(pipe, part).named_modules():
            if name.endswith(learned):
                out, into = module.weight.shape
                layer = f"{part}.{hub_name(part, name)}.{lora}"
                tensors[f"{layer}.down.weight"] = torch.randn(2, into)
                tensors[f"{layer}.up.weight"] = torch.randn(out, 2)
    save_file(tensors, folder / LORA_FILE)
    (folder / "run.json").write_text(json.dumps({"base_model": base}))
    return str(folder)


def test_a_lora_is_computed_at_its_own_scale_and_pytorch_draws_at_others(
    tiny_model, tmp_path, backend
):
    lora = with_lora(tmp_path / "lora", tiny_model)
    request = Request("a cat", seed=1, steps=3)
    scales = [1.0, 0.4, 1.0, 0.0]
    requests = [replace(request, lora_scale=scale) for scale in scales]
    right, ours = (
        draw(Generator.load(lora, device="cpu", backend=each), *requests)
        for each in ("torch", backend)
    )
    assert [p.settings["backend"] for p in ours] == [backend, "torch", backend, "torch"]
    assert all(off_by(a, b) < CLOSE for a, b in zip(right, ours, strict=True))
    assert off_by(right[0], right[1]) > CLOSE < off_by(ours[0], ours[1])
    (again,) = draw(Generator.load(lora, device="cpu", backend=backend), request)
    assert ours[0].image.tobytes() == ours[2].image.tobytes() == again.image.tobytes()
    half = Generator.load(lora, device="cpu", backend=backend, lora_scale=0.4)
    (drawn,) = draw(half, request)
    assert drawn.settings["backend"] == backend and off_by(drawn, right[1]) < CLOSE


def test_a_scale_that_changes_while_it_is_compiled_changes_nothing_of_what_is_compiled(
    stand_in, tiny_model, tmp_path
):
    lora = with_lora(tmp_path / "lora", tiny_model)
    right = draw(Generator.load(lora, device="cpu"), request := Request("a cat", seed=1, steps=3))
    stand_in.go.clear()
    generator = Generator.load(lora, device="cpu", backend="fake", compiled="meanwhile")
    (meanwhile,) = draw(generator, replace(request, lora_scale=0.3))
    stand_in.go.set()
    generator._networks._compilation.wait()
    (ours,) = draw(generator, request)
    assert (meanwhile.settings["backend"], ours.settings["backend"]) == ("torch", "fake")
    assert off_by(ours, right[0]) < CLOSE


# When


def test_pytorch_draws_meanwhile_and_a_drawing_ends_as_it_began(stand_in, tiny_model):
    stand_in.go.clear()
    generator = Generator.load(tiny_model, device="cpu", backend="fake", compiled="meanwhile")
    assert generator.settings["backend"] == "torch"
    request = Request("a cat", seed=1, steps=3)
    events = generator.denoising_events([request])
    generator.step([next(events)])
    stand_in.go.set()
    generator._networks._compilation.wait()
    assert generator.settings["backend"] == "fake"
    for event in events:
        if not isinstance(event, Picture):
            generator.step([event])
    assert event.settings["backend"] == "torch"
    before = len(stand_in.calls)
    (ours,) = draw(generator, request)
    assert ours.settings["backend"] == "fake" and off_by(ours, event) < CLOSE
    assert stand_in.calls[before:] == ["unet"] * 3 + ["vae_decoder"]


@pytest.mark.parametrize("is_own", [True, False])
def test_a_model_that_is_closed_is_not_compiled_any_more(stand_in, tiny_model, capsys, is_own):
    options = {"device": "cpu", "dtype": "fp32", "backend": "fake"}
    stand_in.go.clear()
    if is_own:
        closed = OpeningGenerator(tiny_model)
        closed.open(**options)
    else:
        load = partial(Generator.load, tiny_model, **options, compiled="meanwhile")
        closed = LazyGenerator("lazy", load)
    under_way = closed.opened()._networks._compilation
    closed.close()
    under_way.wait()
    assert not under_way.networks and not stand_in.modules
    assert not list(cache.cache_folder().glob("converted/*"))
    assert "warning" not in capsys.readouterr().err
    assert draw(closed, Request("a cat", steps=1))
    again = closed.opened()._networks._compilation  # of what has been opened for it
    closed.close()
    again.wait()


def test_it_is_converted_once_and_another_model_for_itself(stand_in, tiny_model, tmp_path, capsys):
    for _ in range(2):
        generator = Generator.load(tiny_model, device="cpu", backend="fake")
        assert draw(generator, Request("a cat", steps=2))[0].settings["backend"] == "fake"
    assert len(stand_in.modules) == 3  # decoder, UNet, and its shallow layers
    assert capsys.readouterr().err == "Preparing Fake for this model, once: about 3 s.\n"
    other = tiny_pipeline(seed=0)
    other.unet.conv_out.bias.data += 0.01
    other.save_pretrained(tmp_path / "other")
    Generator.load(str(tmp_path / "other"), device="cpu", backend="fake")
    assert len(stand_in.modules) == 5  # its decoder is that of the first


def test_a_model_that_is_opened_for_one_drawing_is_compiled_only_if_it_has_been(
    stand_in, tiny_model
):
    for expected in ("torch", "fake"):
        generator = Generator.load(tiny_model, device="cpu", backend="fake", compiled="if cached")
        generator._networks._compilation.wait()
        assert generator.settings["backend"] == expected
        Generator.load(tiny_model, device="cpu", backend="fake")


def test_a_large_unet_is_not_in_memory_twice(stand_in, tiny_model, monkeypatch):
    right = Generator.load(tiny_model, device="cpu")
    monkeypatch.setattr(networks, "SMALL_UNET_PARAMETERS", 1)
    stand_in.go.clear()
    generator = Generator.load(tiny_model, device="cpu", backend="fake", compiled="meanwhile")
    request = Request("a cat", seed=1, steps=3)
    early = generator.denoising_events([request])
    first = next(early)
    stand_in.go.set()
    generator._networks._compilation.wait()
    (ours,) = draw(generator, request)
    assert generator.pipe.unet.device.type == "meta"
    assert generator.pipe.unet.num_parameters() == right.pipe.unet.num_parameters()
    generator.step([first])  # begun by PyTorch, and ended by it
    for event in early:
        if not isinstance(event, Picture):
            generator.step([event])
    expected = draw(right, request)[0]
    assert event.image.tobytes() == expected.image.tobytes() and off_by(ours, expected) < CLOSE
    assert generator.weights_sha256() == right.weights_sha256()


# What can go wrong


@pytest.mark.parametrize("damage", ["cut", "other", "unlisted", "garbage"])
def test_a_damaged_entry_is_made_again(stand_in, tiny_model, capsys, damage):
    Generator.load(tiny_model, device="cpu", backend="fake")
    (entry,) = (cache.cache_folder() / "converted").glob("fake-unet-*")
    file = entry / "model.fake"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "other":  # as long, but not what was converted
        stand_in.modules[1].unet.conv_out.bias.data += 1
    elif damage == "unlisted":
        (entry / cache.LISTED).unlink()
    else:
        file.write_text("x" * file.stat().st_size)
    capsys.readouterr()
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    assert generator.settings["backend"] == "fake" and len(stand_in.modules) == 4
    said = capsys.readouterr().err
    if damage in ("other", "garbage"):
        assert "is damaged" in said and "made again" in said and said.count("\n") == 1
    else:
        assert said.startswith("Preparing Fake for this model")


def test_a_conversion_that_fails_is_a_sentence_and_pytorch_draws(stand_in, tiny_model, capsys):
    stand_in.error = RuntimeError("no such operation\nand more")
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    (picture,) = draw(generator, Request("a cat", steps=2))
    assert picture.settings["backend"] == "torch"
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == [
        "warning: Fake cannot compute this model (no such operation). PyTorch draws, in more time."
    ]
    assert not list((cache.cache_folder() / "converted").iterdir())


@pytest.mark.parametrize(("network", "is_large"), [("unet", False), ("unet", True),
                                                   ("vae_decoder", False)])  # fmt: skip
def test_one_that_fails_while_it_draws_is_a_sentence_and_pytorch_goes_on(
    stand_in, tiny_model, monkeypatch, capsys, network, is_large
):
    if is_large:
        monkeypatch.setattr(networks, "SMALL_UNET_PARAMETERS", 1)
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    asked = Request("a cat", seed=7, steps=6)
    (right,) = draw(Generator.load(tiny_model, device="cpu"), asked)
    stand_in.lasts = {network: 3 if network == "unet" else 1}  # one for the check at opening
    for _ in range(2):
        (ours,) = draw(generator, asked)
        assert off_by(ours, right) < CLOSE and ours.settings["backend"] == "torch"
    said = capsys.readouterr().err
    assert said.count("Fake has failed (primitive not implemented)") == 1
    assert stand_in.calls.count(network) == stand_in.lasts[network] + 1
    assert generator.pipe.unet.device.type == "cpu"  # not a shell without weights


def test_pytorch_goes_on_at_the_scale_of_the_drawing_and_not_of_an_earlier_one(
    stand_in, tiny_model, tmp_path
):
    lora = with_lora(tmp_path / "lora", tiny_model)
    asked = Request("a cat", seed=7, steps=4)
    (right,) = draw(Generator.load(lora, device="cpu"), asked)
    generator = Generator.load(lora, device="cpu", backend="fake")
    draw(generator, replace(asked, lora_scale=0.3))
    stand_in.lasts = {"unet": 2}
    (ours,) = draw(generator, asked)
    assert off_by(ours, right) < CLOSE and ours.settings["backend"] == "torch"


def test_memory_that_does_not_suffice_is_no_failure_of_a_back_end(
    stand_in, tiny_model, monkeypatch
):
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    monkeypatch.setattr(networks, "is_out_of_memory", lambda error: True)
    stand_in.lasts = {"unet": 1}
    with pytest.raises(RuntimeError, match="primitive"):
        draw(generator, Request("a cat", steps=2))


def test_what_a_back_end_lacks_the_memory_to_decode_pytorch_decodes(
    stand_in, tiny_model, monkeypatch
):
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    (right,) = draw(generator, Request("a cat", steps=2))
    stand_in.lasts = {"vae_decoder": stand_in.calls.count("vae_decoder")}
    monkeypatch.setattr(networks, "is_out_of_memory", lambda error: "primitive" in str(error))
    (spared,) = draw(generator, Request("a cat", steps=2))
    assert off_by(right, spared) < CLOSE and spared.settings["backend"] == "fake"


@pytest.fixture
def wrong(stand_in, monkeypatch) -> StandIn:
    """It converts to what computes something else."""

    def write(part, folder):
        stand_in.write(part, folder)
        next(stand_in.modules[-1].parameters()).data += 1

    monkeypatch.setitem(FORMATS, "fake", FORMATS["fake"]._replace(write=write))
    return stand_in


def test_a_conversion_that_computes_something_else_never_draws(wrong, tiny_model, capsys):
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    assert generator.settings["backend"] == "torch"
    assert "differs from PyTorch's by" in capsys.readouterr().err


def test_nor_is_it_made_again_until_a_library_is_another(wrong, tiny_model, capsys, monkeypatch):
    for _ in range(2):
        generator = Generator.load(tiny_model, device="cpu", backend="fake")
        assert generator.settings["backend"] == "torch"
        assert len(wrong.modules) == 2  # decoder and UNet
    first, second = capsys.readouterr().err.splitlines()[1:]
    assert first.startswith("warning: Fake cannot compute this model (its unet differs")
    assert second == first.replace("). ", ", as an earlier start has found). ")
    generator = Generator.load(tiny_model, device="cpu", backend="fake", compiled="if cached")
    generator._networks._compilation.wait()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(compilation, "version", lambda name: "99")
    Generator.load(tiny_model, device="cpu", backend="fake")
    assert len(wrong.modules) == 4


def test_nor_if_only_its_shape_is_another(stand_in, tiny_model, monkeypatch):
    def opened(file):
        return lambda inputs: [output[:1] for output in stand_in.open(file)(inputs)]

    monkeypatch.setitem(FORMATS, "fake", FORMATS["fake"]._replace(open=opened))
    for _ in range(2):
        Generator.load(tiny_model, device="cpu", backend="fake")
    assert len(stand_in.modules) == 1


@pytest.mark.parametrize("written", ["{", "[1]", "[" * 200])
def test_a_refusal_that_is_nonsense_stops_nothing(tmp_path, written):
    kept = ConversionCache(tmp_path)
    kept.make("a", 10, entry_of(10))
    kept.refuse("a", "why")
    assert kept.refusal("a") == "why" and not kept.find("a")
    (kept.folder / "a" / cache.REFUSED).write_text(written)
    assert kept.refusal("a") is None and not kept.find("a")
    assert kept.find(kept.make("a", 10, entry_of(10)).name)


def test_a_folder_that_cannot_be_made_is_a_sentence(stand_in, tiny_model, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file")
    generator = Generator.load(tiny_model, device="cpu", backend="fake")
    assert generator.settings["backend"] == "torch"
    assert f"set {cache.VARIABLE} to another folder" in capsys.readouterr().err


# The cache


def entry_of(size: int):
    return lambda folder: (folder / "model").write_bytes(bytes(size))


def test_the_entries_that_were_used_longest_ago_give_way(tmp_path, monkeypatch):
    kept = ConversionCache(tmp_path)
    monkeypatch.setattr(cache, "MAX_BYTES", 4_000)
    for number, name in enumerate("abc"):
        entry = kept.make(name, 1_000, entry_of(1_000))
        stamp = 1_000_000_000 + number
        os.utime(entry, (stamp, stamp))
    assert kept.find("a")  # used now
    kept.make("d", 2_000, entry_of(2_000))
    assert [name for name in "abcd" if kept.find(name)] == ["a", "d"]
    with pytest.raises(UserError, match="at most 4,000 bytes"):
        kept.make("e", 4_001, entry_of(1))


def test_what_somebody_else_keeps_in_the_folder_stays(tmp_path, monkeypatch):
    kept = ConversionCache(tmp_path)
    theirs = [kept.folder / "photographs" / "a.jpg", kept.folder / "notes.txt"]
    theirs[0].parent.mkdir(parents=True)
    for file in theirs:
        file.write_bytes(bytes(5_000))
    monkeypatch.setattr(cache, "MAX_BYTES", 4_000)
    for name in "ab":
        kept.make(name, 3_000, entry_of(3_000))
    assert kept.find("b") and not kept.find("a")
    assert all(file.exists() for file in theirs)


@pytest.mark.parametrize("listed", ["[]", "{", '{"a\\u0000b": 1}', '{"\\ud800": 1}', "[" * 200])
def test_an_entry_that_lists_nonsense_is_none(tmp_path, listed):
    entry = ConversionCache(tmp_path).make("a", 10, entry_of(10))
    (entry / cache.LISTED).write_text(listed)
    assert ConversionCache(tmp_path).find("a") is None


def test_processes_that_want_the_same_at_once_convert_it_once(tmp_path):
    written, both = [], threading.Barrier(2)

    def write(folder: Path) -> None:
        written.append(folder)
        entry_of(10)(folder)

    def make() -> None:
        both.wait(60)
        ConversionCache(tmp_path).make("a", 10, write)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1 and ConversionCache(tmp_path).find("a")


def test_what_one_process_has_made_again_no_other_deletes_or_makes_again(tmp_path):
    kept = ConversionCache(tmp_path)
    broken = version_of(kept.make("a", 10, entry_of(10)))
    both = [kept.make("a", size, entry_of(size), broken) for size in (20, 30)]
    assert (both[0] / "model").stat().st_size == (both[1] / "model").stat().st_size == 20
    kept.discard("a", broken)
    assert kept.find("a")
    kept.discard("a", version_of(kept.folder / "a"))
    assert not kept.find("a")


def test_what_two_starts_find_damaged_at_once_is_made_once(stand_in, tiny_model):
    """Each has found it before the other makes it again."""
    Generator.load(tiny_model, device="cpu", backend="fake")
    (entry,) = (cache.cache_folder() / "converted").glob("fake-unet-*")
    (entry / "model.fake").write_text("x" * (entry / "model.fake").stat().st_size)
    both = threading.Barrier(2)

    def open_with_the_other(file: Path):
        if file.read_text().startswith("x"):
            both.wait(60)
        return stand_in.open(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "fake", FORMATS["fake"]._replace(open=open_with_the_other))
        pipes = [open_pipeline(tiny_model, "cpu") for _ in range(2)]
        found = [compilation.Compilation(pipe, "fake", "meanwhile") for pipe in pipes]
        for each in found:
            each.wait()
    assert all(each.networks for each in found) and len(stand_in.modules) == 4


def test_what_a_killed_process_left_is_no_entry_and_goes(tmp_path):
    left = tmp_path / "converted" / ".a.999999999"
    left.mkdir(parents=True)
    (left / "model").write_bytes(bytes(10))
    kept = ConversionCache(tmp_path)
    assert kept.find("a") is None
    kept.make("b", 10, entry_of(10))
    assert not left.exists()


def test_the_cache_is_where_the_desktop_says(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "sd-pokemon"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "sd-pokemon"


def test_the_name_of_an_entry_does_not_depend_on_where_the_model_lies(tiny_model, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "copy")
    keys = [
        [compilation.key_of(part, "onnx") for part in drawing_parts(open_pipeline(place, "cpu"))]
        for place in (tiny_model, str(tmp_path / "copy"))
        if not BACKENDS["onnx"].missing
    ]
    assert not keys or keys[0] == keys[1]


# Which


def test_the_fastest_that_is_installed_is_taken_on_a_cpu_in_fp32(monkeypatch):
    here: set[str] = set()
    monkeypatch.setattr(choice, "find_spec", lambda name: name in here or None)
    assert chosen("auto", "cpu", "float32") == "torch"
    here |= {"onnx", "onnxscript", "onnxruntime"}
    assert chosen("auto", "cpu", "float32") == "onnx"
    here.add("openvino")
    assert chosen("auto", "cpu", "float32") == "openvino"
    assert chosen("auto", "cuda", "float16") == chosen("auto", "cpu", "bfloat16") == "torch"
    assert chosen("torch", "cpu", "float32") == "torch"


def test_one_that_cannot_be_is_a_sentence_before_a_model_is_opened(monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"here \(openvino\).*pip install openvino.*'fast'"):
        generate.main(["a cat", "--backend", "openvino"])
    with pytest.raises(UserError, match=r"no back end 'tensorrt'\. Choose one of auto, torch"):
        generate.main(["a cat", "--backend", "tensorrt"])
    monkeypatch.setattr(choice, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="OpenVINO computes on the CPU"):
        check_backend("openvino", "cuda", None)
    with pytest.raises(UserError, match="OpenVINO computes in fp32"):
        check_backend("openvino", "cpu", "bf16")


# The commands


def test_the_command_draws_by_it_and_the_picture_says_so(
    stand_in, tiny_model, tmp_path, capsys, monkeypatch
):
    words = ["a cat", "--model", tiny_model, "--steps", "2", "--seed", "1"]
    for name, options in {"fake": ["--backend", "fake"], "auto": []}.items():
        monkeypatch.setenv(choice.VARIABLE, "auto")
        generate.main([*words, "--output", str(tmp_path / f"{name}.png"), *options])
        with Image.open(tmp_path / f"{name}.png") as png:
            assert '"backend": "fake"' in png.text["sd-pokemon"]
    assert "Preparing Fake for this model, once" in capsys.readouterr().err


def test_a_file_of_prompts_is_not_drawn_again_by_another_back_end(
    stand_in, tiny_model, tmp_path, capsys
):
    (tmp_path / "wishes.txt").write_text("a cat\na dog\n")
    words = ["--prompts", str(tmp_path / "wishes.txt"), "--model", tiny_model, "--steps", "2"]
    for backend, said in (("torch", "2 to draw"), ("fake", "0 to draw")):
        generate.main([*words, "--output", str(tmp_path / "out"), "--backend", backend])
        assert said in capsys.readouterr().out


def test_the_app_draws_by_it_once_it_is_ready(stand_in, tiny_model):
    generator = OpeningGenerator(tiny_model)
    generator.open("cpu", "fp32", "fake")
    generator.opened()._networks._compilation.wait()
    (picture,) = draw(generator, Request("a cat", steps=2))
    assert picture.settings["backend"] == "fake"

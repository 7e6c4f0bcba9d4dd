"""Models in one file: the picture is the folder's own, and no stranger's program ever runs."""

import copyreg
import json
import os
import pickle
import random
import runpy
import shutil
import subprocess
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_pipeline
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from core.errors import UserError
from evaluation.compared_models import compared_models
from sampling import single_file
from sampling.compvis_names import compvis_weights
from sampling.generator import Generator
from sampling.lazy_generators import OpeningGenerator
from sampling.pipeline import open_pipeline
from sampling.request import Request
from sampling.single_file import read_weights

RUNS_CODE = "could run code"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in compvis_weights(tiny_pipeline()).items()}


@pytest.fixture
def marker(tmp_path) -> Path:
    """The file that hostile code writes; there is none at the end."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists(), "code of a model has run"


def picture(model: str) -> np.ndarray:
    generator = Generator.load(model, device="cpu")
    (drawn,) = generator.pictures([Request("a red cat", seed=3, steps=3)])
    return np.asarray(drawn.image)


def zipped(path: Path, pickled: bytes, how: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    """A file as torch.save writes it, around a pickle that it would not write."""
    with zipfile.ZipFile(path, "w", how) as archive:
        entries = {"a/data.pkl": pickled, "a/byteorder": b"little", "a/version": b"3\n"}
        for name, content in (entries | more).items():
            archive.writestr(name, content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_weights(str(path))
    assert len(str(refused.value).splitlines()) == 1 and str(path) in str(refused.value)
    return str(refused.value)


# Good files


def test_the_names_are_those_of_the_published_model():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
        text_encoder = CLIPTextModel(CLIPTextConfig())
    pipe = types.SimpleNamespace(unet=unet, vae=vae, text_encoder=text_encoder)
    names = compvis_weights(pipe)
    for name in ("v1", "v2", "clip", "inpainting"):  # by which diffusers knows them
        assert single_file_utils.CHECKPOINT_KEY_NAMES[name] in names
    back = single_file_utils.convert_ldm_unet_checkpoint(names, unet.config)
    assert back.keys() == unet.state_dict().keys()
    back = single_file_utils.convert_ldm_vae_checkpoint(names, vae.config)
    theirs = vae.state_dict()
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in theirs.items()}


@pytest.fixture(scope="module")
def files(weights, tiny_model, tmp_path_factory) -> Path:
    """A folder with the tiny model's configs as `tiny`, and with its weights in single files."""
    folder = tmp_path_factory.mktemp("single")
    skipped = shutil.ignore_patterns("*.safetensors")
    for name in ("tiny", "old", "odd", "half"):
        shutil.copytree(tiny_model, folder / name, ignore=skipped)
    save_file(weights, folder / "tiny.safetensors")
    beside = {"epoch": 3, "global_step": 2**40, "lr": 1e-5, "loops": [None, True, (1, "x")]}
    torch.save({"state_dict": OrderedDict(weights), **beside}, folder / "tiny.ckpt")
    torch.save(weights, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    shutil.copy(folder / "tiny.safetensors", folder / "odd.ckpt")
    save_file({n: t.half() for n, t in weights.items()}, folder / "half.safetensors")
    return folder


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.ckpt", "old.ckpt", "odd.ckpt"])
def test_a_single_file_draws_the_very_picture_of_the_folder(name, files, tiny_model):
    assert (picture(str(files / name)) == picture(tiny_model)).all()


def test_half_precision_is_opened_in_full_as_a_folder_is(files):
    assert open_pipeline(str(files / "half.safetensors"), "cpu").unet.dtype == torch.float32


def test_a_single_file_is_a_model_to_every_command(files, tiny_model):
    opening = OpeningGenerator(str(files / "tiny.ckpt"))
    assert (opening.name, opening.size, opening.run, opening.card) == ("tiny", 32, {}, "")
    load = Generator.load
    found = compared_models([str(files / "tiny.ckpt")], load, base=tiny_model)
    assert [contender.name for contender in found] == ["tiny", "tiny"]


def test_configs_that_were_downloaded_before_are_found_without_a_network(
    files, tiny_model, tmp_path, monkeypatch
):
    hub = tmp_path / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    skipped = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(tiny_model, hub / "snapshots" / "abc", ignore=skipped)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    alone = shutil.copy(files / "tiny.ckpt", tmp_path / "alone.ckpt")
    assert (picture(str(alone)) == picture(tiny_model)).all()


# Files that cannot be opened


def test_without_configs_the_sentence_says_which_and_where_to_put_them(weights, tmp_path):
    save_file(weights, tmp_path / "mine.safetensors")
    words = r"configs .* of stable-diffusion-v1-5/stable-diffusion-v1-5, .* call it 'mine'\.$"
    with pytest.raises(UserError, match=words):
        open_pipeline(str(tmp_path / "mine.safetensors"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("gone.ckpt", "There is no file"), ("notes.txt", r"a \.safetensors or \.ckpt file")],
)
def test_what_is_no_model_file_is_said(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").touch()
    for path in (name, f"./{name}"):
        with pytest.raises(UserError, match=words):
            OpeningGenerator(path)


def test_configs_of_another_model_are_a_sentence(files, weights, tmp_path):
    for change, words in (("hidden_size", "embed"), ("num_hidden_layers", "lacks")):
        shutil.copytree(files / "tiny", tmp_path / change)
        config = tmp_path / change / "text_encoder" / "config.json"
        config.write_text(config.read_text().replace(f'"{change}": ', f'"{change}": 1'))
        save_file(weights, tmp_path / f"{change}.safetensors")
        with pytest.raises(UserError, match=f"does not fit the configs in .*{words}"):
            open_pipeline(str(tmp_path / f"{change}.safetensors"))


def test_a_part_of_a_model_is_none(weights, tmp_path):
    unet = {name: t for name, t in weights.items() if "diffusion" in name}
    save_file(unet, tmp_path / "unet.safetensors")
    assert "holds no vae and no text_encoder" in refusal(tmp_path / "unet.safetensors")
    save_file({"lora_unet_down.alpha": torch.ones(1)}, tmp_path / "lora.safetensors")
    assert "not a LoRA" in refusal(tmp_path / "lora.safetensors")


def test_a_model_of_another_kind_is_named(weights, tmp_path):
    first = "model.diffusion_model.input_blocks.0.0.weight"
    save_file(weights | {first: torch.zeros(8, 9, 3, 3)}, tmp_path / "paint.safetensors")
    with pytest.raises(UserError, match=r"of the kind 'inpainting'\. Give a Stable"):
        open_pipeline(str(tmp_path / "paint.safetensors"))


@pytest.mark.parametrize("name", ["tiny.safetensors", "tiny.ckpt", "old.ckpt"])
def test_a_damaged_file_is_a_sentence(name, files, tmp_path):
    whole = (files / name).read_bytes()
    broken = tmp_path / name
    for length in (0, 1, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        broken.write_bytes(whole[:length])
        assert "cannot be read as weights" in refusal(broken)


def test_any_change_of_a_pickle_gives_a_sentence_or_weights(tmp_path):
    tensors = {f"{start}weight": torch.ones(2, 3) for start in single_file.PARTS.values()}
    torch.save({"state_dict": OrderedDict(tensors), "epoch": 1}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as archive:
        data = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = data["whole/data.pkl"]
    chance, refused = random.Random(0), 0
    for _ in range(200):
        changed = bytearray(pickled)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        data["whole/data.pkl"] = bytes(changed)
        with zipfile.ZipFile(tmp_path / "changed.ckpt", "w") as archive:
            for name, content in data.items():
                archive.writestr(name, content)
        try:
            read_weights(str(tmp_path / "changed.ckpt"))
        except UserError:
            refused += 1
    assert 0 < refused < 200


# Hostile pickles


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_even_plain_weights_are_refused_in_another_protocol_than_they_are_written_in(
    protocol, weights, tmp_path, recwarn
):
    torch.save(weights, tmp_path / "m.ckpt", pickle_protocol=protocol)
    said = refusal(tmp_path / "m.ckpt")
    assert RUNS_CODE in said and (protocol < 3 or f"has protocol {protocol}," in said)
    assert not [warning for warning in recwarn if "protocol" in str(warning.message)]


class Call:
    """Pickled, it says: call `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(marker: Path) -> dict[str, object]:
    """Objects whose pickles write the marker when they are read, each by its own road."""
    code = f"open({str(marker)!r}, 'w')"
    inner = pickle.dumps(Call(eval, code))
    return {
        "posix.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "subprocess.call": Call(subprocess.call, ["touch", str(marker)]),
        "_pickle.loads": Call(pickle.loads, inner),
        "torch.serialization.load": Call(torch.load, str(marker)),
        "torch.hub.load": Call(torch.hub.load, "owner/name", "model"),
    }


@pytest.mark.parametrize("name", payloads(Path("x")))
@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_pickle_that_calls_anything_is_refused_by_name(name, protocol, marker, tmp_path):
    payload = payloads(marker)[name]
    pickled = pickle.dumps({"state_dict": {"x": payload}}, protocol, fix_imports=False)
    if not name.startswith("torch"):  # the trap works
        pickle.loads(pickled)
        marker.unlink()
    bare = tmp_path / "bare.ckpt"
    bare.write_bytes(pickled)
    for said in (refusal(bare), refusal(zipped(tmp_path / "zipped.ckpt", pickled))):
        assert RUNS_CODE in said
        assert f"names {name!r}," in said or protocol < 2  # their text comes first, in its own form


def test_a_call_hidden_among_good_weights_is_refused_in_every_place(weights, marker, tmp_path):
    call = Call(os.system, f"touch {marker}")
    for content in (
        weights | {"x": call},
        {"state_dict": weights, "callbacks": {call.__class__: 1}},
        {"state_dict": weights, "epoch": [(({"x": call},),)]},
    ):
        for modern in (True, False):
            torch.save(content, tmp_path / "m.ckpt", _use_new_zipfile_serialization=modern)
            assert RUNS_CODE in refusal(tmp_path / "m.ckpt")


def test_a_callback_of_a_training_library_is_refused_by_name(tmp_path):
    name = b"pytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n"
    said = refusal(zipped(tmp_path / "sd.ckpt", b"\x80\x02}c" + name + b"K\x01s."))
    assert "names 'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint'," in said
    assert "Convert it to safetensors" in said


@pytest.mark.parametrize(
    ("pickled", "found"),
    [
        (b"(S'touch MARKER'\nios\nsystem\n.", "instruction STRING"),
        (b"(Vtouch MARKER\nios\nsystem\n.", "instruction UNICODE"),
        (b"(X\x0c\x00\x00\x00touch MARKERios\nsystem\n.", "names 'os.system'"),
        (b"(cos\nsystem\nX\x0c\x00\x00\x00touch MARKERo.", "names 'os.system'"),
        (b"(ccollections\nOrderedDict\no.", "instruction OBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93.", "instruction POP"),
        (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93.", "names 'posix.system'"),
        (b"\x80\x02X\x05\x00\x00\x00posixq\x01X\x06\x00\x00\x00system\x93.", "posix.system"),
        (b"\x80\x04K\x01K\x02\x93.", "names '?.?'"),
        (b"\x80\x02cbuiltins\ngetattr\n.", "names 'builtins.getattr'"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", "__globals__"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02\x83\x01\x00.", "instruction EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "instruction EXT4"),
        (b"Pid\n.", "instruction PERSID"),
        (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.", "a tuple of more than 1000 things"),
        (b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns.", "a tuple of more than 1000 things"),
    ],
)
def test_an_instruction_that_weights_do_not_need_is_refused(pickled, found, tmp_path):
    said = refusal(zipped(tmp_path / "m.ckpt", pickled))
    assert found in said and RUNS_CODE in said


def test_a_registered_extension_does_not_run(marker, tmp_path):
    copyreg.add_extension("posix", "system", 240)
    try:
        pickled = pickle.dumps(Call(os.system, f"touch {marker}"), 2)
        assert b"\x82\xf0" in pickled
        assert "instruction EXT1" in refusal(zipped(tmp_path / "m.ckpt", pickled))
    finally:
        copyreg.remove_extension("posix", "system", 240)


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"


# 4, 2**31 - 1, -1, None, nothing, two numbers
STORAGE_SIZES = b"K\x04", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"N", b"", b"K\x04K\x04"


@pytest.mark.parametrize("size", STORAGE_SIZES)
def test_a_storage_is_what_the_file_has_or_nothing(size, tmp_path):
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + size + b"tQ"
    # 1,000,000 numbers, all at the same place.
    tensor += b"K\x00J\x40\x42\x0f\x00\x85K\x00\x85\x89ccollections\nOrderedDict\n)RtR"
    pickled = b"\x80\x02}X\x01\x00\x00\x00x" + tensor + b"s."
    said = refusal(zipped(tmp_path / "m.ckpt", pickled, **{"a/data/0": b"\0" * 16}))
    assert "larger than its data" in said or size not in STORAGE_SIZES[:2]


@pytest.mark.parametrize("name", [b"X\x02\x00\x00\x00id", b"K\x01", b")", b"]", b"N"])
def test_a_persistent_name_of_odd_shape_is_a_sentence(name, tmp_path):
    refusal(zipped(tmp_path / "m.ckpt", b"\x80\x02" + name + b"Q."))


def test_a_state_that_holds_itself_ends(tmp_path):
    refusal(zipped(tmp_path / "m.ckpt", b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s."))


# Hostile archives

HARMLESS = b"\x80\x02}."


def test_an_archive_with_a_second_pickle_is_refused(marker, tmp_path):
    call = pickle.dumps(Call(os.system, f"touch {marker}"), 2)
    for name in ("a/DATA.PKL", "b/data.pkl", "../../data.pkl", "a/constants.pkl"):
        said = refusal(zipped(tmp_path / "m.ckpt", HARMLESS, **{name: call}))
        assert "holds 2 pickles" in said


def test_nothing_is_unpacked_to_where_an_entry_points(tmp_path):
    (tmp_path / "in").mkdir()
    entries = {"../escaped": b"x", str(tmp_path / "escaped"): b"x", "a/data/../../escaped": b"x"}
    refusal(zipped(tmp_path / "in" / "m.ckpt", HARMLESS, **entries))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "m.ckpt"]


def test_what_unfolds_is_refused_before_it_does(tmp_path, monkeypatch):
    big = b"\x80\x02" + b"N" * 2**20
    assert "is compressed" in refusal(zipped(tmp_path / "m.ckpt", big, zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(single_file, "MAX_PICKLED_BYTES", 2**19)
    assert "more than 524,288 bytes" in refusal(zipped(tmp_path / "m.ckpt", big))


def test_a_pickle_that_calls_itself_safetensors_does_not_run(marker, tmp_path):
    call = pickle.dumps(Call(os.system, f"touch {marker}"), 2)
    assert "cannot be read" in refusal(zipped(tmp_path / "zipped.safetensors", call))
    (tmp_path / "bare.safetensors").write_bytes(call)
    assert "cannot be read" in refusal(tmp_path / "bare.safetensors")


# Hostile folders


@pytest.fixture
def hostile(tiny_model, tmp_path, marker, monkeypatch) -> Path:
    """A model folder with Python files where one may be looked for, each writing the marker."""
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_model, folder)
    for part in (".", "unet", "tokenizer", "text_encoder"):
        for name in ("evil", "pipeline", "__init__", "os"):
            plant(folder / part / f"{name}.py", marker)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def plant(path: Path, marker: Path) -> None:
    """Python that writes the marker when it is imported, and has all that is looked for."""
    classes = "Evil", "UNet2DConditionModel", "CLIPTokenizer"
    code = "\n".join(f"class {name}: pass" for name in classes)
    path.write_text(f"open({str(marker)!r}, 'w')\n{code}\n")
    runpy.run_path(str(path))  # the trap works
    marker.unlink()


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": ["evil", "Evil"]}, "is a"),
        ({"_class_name": ["pipeline", "Evil"]}, "is a"),
        ({"unet": ["evil", "Evil"]}, "custom code in evil.py"),
        ({"unet": ["pipeline", "Evil"]}, "custom code in pipeline.py"),
        ({"unet": ["os", "system"]}, "custom code in os.py"),
        ({"vae": ["os", "system"]}, "cannot be opened"),
        ({"vae": ["subprocess", "Popen"]}, "cannot be opened"),
        ({"vae": ["antigravity", "fly"]}, "antigravity is not one of the libraries"),
        ({"vae": ["evil", "Evil"]}, "evil is not one of the libraries"),
        ({"unet": ["diffusers", "DiffusionPipeline"]}, "cannot be opened"),
        ({"tokenizer": ["evil", "Evil"]}, "custom code in evil.py"),
        ({"tokenizer": ["transformers", "AutoTokenizer"]}, "cannot be opened"),
        ({"text_encoder": ["transformers", "AutoModel"]}, "cannot be opened"),
    ],
)
def test_no_code_of_a_model_folder_runs(changes, words, hostile):
    change(hostile / "model_index.json", **changes)
    with pytest.raises(UserError, match=words):
        open_pipeline(str(hostile), "cpu")


@pytest.mark.parametrize("name", ["None.py", "unet/diffusers.py", "tokenizer/transformers.py"])
def test_a_file_that_stands_where_a_library_is_looked_for_does_not_run(name, hostile, marker):
    plant(hostile / name, marker)
    with pytest.raises(UserError, match=f"custom code in {Path(name).name}"):
        open_pipeline(str(hostile), "cpu")


def test_configs_that_ask_for_code_do_not_get_it(hostile):
    asked = {
        "auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoModel": "evil.Evil"},
        "trust_remote_code": True,
        "custom_pipeline": "evil",
    }
    for name in (
        "model_index.json",
        "tokenizer/tokenizer_config.json",
        "text_encoder/config.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
    ):
        change(hostile / name, **asked)
    open_pipeline(str(hostile), "cpu")


def test_configs_beside_a_file_cannot_run_code_either(weights, hostile):
    save_file(weights, hostile.with_suffix(".safetensors"))
    open_pipeline(str(hostile.with_suffix(".safetensors")), "cpu")
    change(hostile / "model_index.json", tokenizer=["evil", "Evil"])
    with pytest.raises(UserError, match=r"custom code in evil\.py"):
        open_pipeline(str(hostile.with_suffix(".safetensors")), "cpu")


@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "diffusion_pytorch_model"), ("text_encoder", "pytorch_model")],
)
def test_pickled_weights_in_a_folder_are_refused_unread(part, name, hostile, marker):
    for path in (hostile / part).glob("*.safetensors"):
        path.unlink()
    call = Call(os.system, f"touch {marker}")
    (hostile / part / f"{name}.bin").write_bytes(pickle.dumps(call, 2))
    with pytest.raises(UserError, match="safetensors"):
        open_pipeline(str(hostile), "cpu")

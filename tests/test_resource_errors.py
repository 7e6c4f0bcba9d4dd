"""What the machine does not give is called that, whatever it was taken for on the way."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from core.errors import UserError, sentence_of
from core.resource_errors import is_out_of_memory, limit_of_memory, shortage

ROOT = Path(__file__).parent.parent

MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't allocate "
                 "memory: you tried to allocate 99 bytes. Error code 12 (Cannot allocate memory)"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    SafetensorError("Cannot allocate memory (os error 12)"),
    RuntimeError("can't start new thread"),
    ImportError("libscipy_openblas.so: failed to map segment from shared object"),
]  # fmt: skip


@pytest.mark.parametrize("error", MEMORY, ids=lambda error: str(error)[:20])
def test_memory_that_ran_out_is_called_that_whatever_it_was_taken_for(error):
    taken = UserError("x is neither a Stable Diffusion folder here nor one that the hub gives.")
    taken.__cause__ = ValueError("cannot be read")
    taken.__cause__.__context__ = error
    for each in (error, taken):
        assert is_out_of_memory(each)
        assert sentence_of(each).startswith("this process ran out of memory")


def test_what_is_no_lack_of_memory_is_not_called_that():
    ours = UserError("The prompt 'a robot out of memory' is too long; shorten it.")
    handled = ValueError("another")
    handled.__context__, handled.__suppress_context__ = MemoryError(), True  # raised from None
    for error in (ours, handled, RuntimeError("shapes differ"), OSError(errno.EACCES, "denied")):
        assert not is_out_of_memory(error) and shortage(error) is None
    assert sentence_of(ours) == str(ours)
    assert sentence_of(RuntimeError("shapes differ")) is None


def test_a_sentence_of_ours_on_memory_keeps_its_advice_and_what_was_saved():
    advice = UserError("cuda ran out of memory. Any of these needs less: --method lora.")
    advice.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    advice.add_note("The state after step 7 is saved.")
    assert sentence_of(advice) == f"{advice} The state after step 7 is saved."
    other = UserError("x cannot be written.")
    other.__cause__ = MemoryError()
    other.add_note("The state after step 7 is saved.")
    assert sentence_of(other).endswith("larger machine. The state after step 7 is saved.")


def test_too_many_open_files_are_no_wrong_folder():
    taken = UserError("x is no model folder.")
    taken.__cause__ = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert "ulimit -n" in sentence_of(taken)


def test_a_full_disk_is_a_sentence_wherever_it_was_met():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/log.jsonl")
    assert sentence_of(full).startswith("out/log.jsonl cannot be written: No space left on device")


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="there is no such limit here")
@pytest.mark.parametrize("command", ["train", "generate"])
def test_a_limit_of_memory_is_no_wrong_model(tiny_model, tmp_path, command):
    """The limit is set when the model is about to be opened, so that it is met there."""
    calls = {
        "train": "from training.model import open_base; from training.config import Config; "
        "open_base(Config(pretrained_model_name_or_path=sys.argv[1], train_data_dir='-'))",
        "generate": "from sampling.generator import Generator; "
        "Generator.load(sys.argv[1], device='cpu')",
    }
    script = f"""
import resource, sys
import diffusers, torch, transformers
from diffusers import StableDiffusionPipeline
from core.errors import exit_with_sentence
def command():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**16, resource.RLIM_INFINITY))
    {calls[command]}
exit_with_sentence(command)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, tiny_model], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert "error: this process ran out of memory (ulimit -v allows" in ended.stderr
    assert limit_of_memory() == "" or "ulimit" in limit_of_memory()

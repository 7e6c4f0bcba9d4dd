"""The floating-point type follows the processor's flags, wherever one is chosen."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core import precision

ROOT = Path(__file__).resolve().parent.parent
NOTHING = dict.fromkeys(("avx2", "avx512_f", "amx_tile", "avx_ne_convert"), True)


@pytest.fixture
def processor(monkeypatch):
    """Take the place of this machine's processor: a function of its flags."""

    def put(**flags: bool) -> None:
        precision._cpu_has_bf16.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: NOTHING | flags)

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    yield put
    precision._cpu_has_bf16.cache_clear()


@pytest.mark.parametrize("unit", ["avx512_bf16", "amx_bf16", "bf16", "sve_bf16"])
def test_units_of_any_make_are_known(processor, unit):
    processor(**{unit: True})
    assert precision.has_bf16("cpu") and precision.fastest_precision("cpu") == "bf16"
    assert precision.cost_of_bf16("cpu", "--dtype fp32") is None
    assert precision.bf16_autocast("cpu")._enabled


def test_a_processor_without_units_computes_in_fp32_and_says_what_bf16_costs(processor):
    processor(avx512_bf16=False)
    assert not precision.has_bf16("cpu") and precision.fastest_precision("cpu") == "no"
    assert "--dtype fp32" in precision.cost_of_bf16("cpu", "--dtype fp32")
    assert not precision.bf16_autocast("cpu")._enabled
    assert precision.cost_of_bf16("cuda", "--dtype fp32") is None


def test_gpus_are_asked_for_units_that_are_no_emulation(monkeypatch):
    asked = monkeypatch.setattr
    asked(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not precision.has_bf16("cuda")
    asked(torch.backends.mps, "is_macos_or_newer", lambda *version: version == (14, 0))
    assert precision.has_bf16("mps")  # of Metal, since macOS 14


@pytest.mark.parametrize(
    ("isa", "free"), [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_AMX", True)]
)
def test_units_that_onednn_may_not_use_do_not_count(processor, monkeypatch, isa, free):
    processor(amx_bf16=True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert precision.has_bf16("cpu") is free


def test_a_build_without_onednn_has_no_units(processor, monkeypatch):
    processor(bf16=True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not precision.has_bf16("cpu")


def test_the_flags_of_this_processor_can_be_read():
    code = "from core.precision import has_bf16; print(has_bf16('cpu'))"
    for isa, known in (("DEFAULT", ("True", "False")), ("AVX2", ("False",))):
        said = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True,
            env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa},
        )  # fmt: skip
        assert said.stdout.strip() in known

"""Packages that options need are looked for before a picture is read."""

import sys
from types import ModuleType

import pytest
from runs import config_for

import train_text_to_image
from core.errors import UserError
from training.config import Config
from training.optional_packages import refuse_missing

NEEDED = {"pretrained_model_name_or_path": "model", "train_data_dir": "data"}
OPTIONS = {
    "torchao.optim": {"use_8bit_adam": True},
    "prodigyopt": {"optimizer": "prodigy"},
    "wandb": {"report_to": "wandb"},
    "comet_ml": {"report_to": "comet_ml"},
    "tensorboard": {"report_to": "tensorboard"},
    "open_clip": {"validation_scorer": "ViT-B-16/openai", "validation_prompts": ("a dog",)},
}


@pytest.mark.parametrize("module", OPTIONS)
def test_a_package_that_is_missing_is_named_with_how_to_get_it(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not there
    with pytest.raises(UserError, match=r"needs the package \w+: pip install \w+, or leave it out"):
        refuse_missing(Config(**NEEDED, **OPTIONS[module]))


@pytest.mark.parametrize("module", OPTIONS)
def test_a_package_that_is_there_is_no_matter(module, monkeypatch):
    package = module.partition(".")[0]
    for name in {package, module}:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    refuse_missing(Config(**NEEDED, **OPTIONS[module]))


def test_it_is_found_before_the_data_are_looked_at(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    config = config_for(tiny_model, tmp_path, use_8bit_adam=True, optimizer="adamw8bit")
    monkeypatch.setattr("training.dataset.CaptionedImages", None)
    with pytest.raises(UserError, match="torchao"):
        train_text_to_image.main(config)
    assert not config.output.exists()


def test_a_compiler_that_is_missing_is_found_at_the_start():
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(UserError, match=r"--torch_compile needs a C\+\+ compiler"),
    ):
        refuse_missing(Config(**NEEDED, torch_compile=True))

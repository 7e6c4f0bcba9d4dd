"""The sampler of models that training made to draw in few steps: its name, class and options."""

from typing import Any

FEW_STEPS = "DDIM trailing"
# From pure noise to the clean picture, as such a model learns it.
SAMPLER: tuple[str, dict[str, Any]] = (
    "DDIMScheduler",
    {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False},
)

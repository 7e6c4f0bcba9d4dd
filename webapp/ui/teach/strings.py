"""All that the Teach tab says of its own accord, as strings.py does for the other tabs."""

LOST = "The app does not answer. It may have been stopped: start it again, nothing is lost."

NOT_A_FORM = "That is no form of this page. Reload it."

# Navigation
ALL_RUNS = "All runs"
NEW_RUN = "Teach something new"

# What to teach
WHAT_TO_TEACH = "What to teach"
KIND = "What shall it learn?"
KINDS = {
    "style": (
        "A style",
        "Small matrices beside the model (LoRA): the surest way, and a small file.",
    ),
    "whole": ("A style, with the whole model", "Learns more, forgets more, takes longer."),
    "subject": ("A subject", "One thing or being, from a handful of pictures (DreamBooth)."),
}
PRESET = "How long may it take?"
PRESETS = {
    "quick": ("Two minutes", "a first impression"),
    "coffee": ("A coffee", "a quarter of an hour"),
    "real": ("The real thing", "as long as it goes on learning, eight hours at most"),
}
NAME = "Name of the new model"
SUBJECT_WORDS = "A name of its own, of words that mean nothing else"
CLASS_WORDS = "What it is"
SUBJECT_EXAMPLE, CLASS_EXAMPLE = "sks dog", "dog"
PROMPTS = "Draw these along the way, a prompt on each line"
MORE_SETTINGS = "More settings"
START_FROM_MODEL = "Model to start from"
KEEP_KNOWN = "Rehearse what the model knows, so that it forgets less (takes twice as long)"
MORE_OPTIONS = "Options of train_text_to_image.py, which win over those chosen here"
START = "Start"
BACK_TO_PICTURES = "Back to the pictures"
PICTURES_OF_SET = "{count:,} pictures to learn from"
AND_HELD_OUT = ", {count:,} kept out to judge it by"
PLAN = "The plan"
MEASURING = "Measuring a step on this machine"
PLAN_FIRST = "The plan is not made yet. Wait a moment."
TIME, STEPS, MEMORY, DISK = "Time", "Steps", "Memory", "Disk"
ABOUT = "about {time}"
STEPS_OF = "{steps}, {step} each, measured here"
MEMORY_OF = "{memory}, {free} are free"
TOO_MUCH_MEMORY = "That is more than is free. Close something, or add one of these options:"
DISK_OF = "{disk} at most"
COMMAND_LINE = "The same in a shell"
STARTED = "It is on its way."
NOT_TAUGHT_HERE = "The settings of {name} are not known: it was not started here."
LONG_OPTIONS = "More than {limit:,} characters of options are too many."
UNREAD_OPTIONS = "The options cannot be read ({reason}). Close the quotes."
OWN_OPTION = "{option} is decided by the page. Leave it out."
NO_OPTION = "{word} is no option: begin with two dashes, as in --seed 7."

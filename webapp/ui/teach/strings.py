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

# Pictures
PICTURES = "Pictures to learn from"
NEW_SET = "my pictures"
SET_NAME = "Name of these pictures"
BEGIN = "Begin"
BEGIN_WITH = (
    "Drop pictures, a folder or a .zip here, with captions in .txt files or a table if you have any"
)
DROP_MORE = "Drop more here"
CHOOSE_FILES = "Choose files"
CHOOSE_FOLDER = "Choose a folder"
SENDING = "Being sent"
EARLIER_SETS = "Those you have"
ALL_SETS = "Other pictures"
PATH_INSTEAD = "Name a path on this machine instead"
PATH = "A folder, a table or an archive; it is only read"
READ_PATH = "Read it"
WHOLE_PATH = "Write the whole path, from the root on, as in /home/me/photos."
NO_PATH = "There is no {path} on this machine. Check the path."
WORK = {
    "unpack": "{place} is being read",
    "captions": "The captions in {place} are being read",
    "check": "The pictures are being checked",
    "prepare": "The pictures are being made ready",
    "suggest": "Captions are being suggested",
}
STOP_WORK = "Stop"
RETRY = "Try again"
FORGET = "Dismiss"
COUNT = "{count:,} pictures"
COUNT_ONE = "1 picture"
FAULTY = "{count:,} cannot be learned from yet"
UNCAPTIONED = "{count:,} without a caption"
COUNT_LEFT_OUT = "{count:,} left out"
NO_PICTURES_YET = "No picture is here yet."
LEAVE_OUT_FAULTY = "Leave these {count:,} out"
SURE_LEAVE_OUT = "Really leave {count:,} out"
CHECK_AGAIN = "Check again"
USE_THEM = "Use these {count:,} pictures"
READY = "They are ready."
NEXT = "Next: what to teach"
SHOW_ALL = "All {count:,}"
SHOW_LOOK = "To look at {count:,}"
SHOW_LEFT_OUT = "Left out {count:,}"
TRIGGER = "A word put before all captions"
TRIGGER_EXAMPLE = "none"
TRIGGER_ABOUT = "Later you write it in a prompt to call what was learned."
HELD_OUT = "Kept out to judge the model by"
HELD_OUT_SHARE = "{share} of the pictures"
HELD_OUT_NONE = "none"
SAVED = "Saved."
CAPTION_OF = "Caption of {name}"
WRITE_CAPTION = "It has no caption: write one."
SUGGESTED = "suggested"
FROM_TABLE = "from a table"
SUGGEST = "Suggest captions"
LEAVE_OUT = "Leave out"
TAKE_BACK = "Take back"
TURN = "Turn"
TURN_OF = "Turn {name} by a quarter"
LEAVE_OUT_OF = "Leave out {name}"
TAKE_BACK_OF = "Take back {name}"
SAME_AS = "The same file as {name}:"
LIKE = "Looks like {name}:"
KEEP_THIS = "Keep this one"
KEEP_OTHER = "Keep the other"
BROKEN = "It cannot be shown."
NOT_CHECKED = "Not checked yet."
NO_PICTURE = "There is no picture {name}. It may have been deleted."
LONG_CAPTION = "A caption of more than {limit:,} characters is too long. Shorten it."
LONG_TRIGGER = "More than {limit} characters are too many to be put before all captions."
PAGES = "Pages"
PAGE = "Page {number}"
MORE = "More about this set"
DELETE_SET = "Delete these pictures"
SURE_DELETE_SET = "Really delete them, originals included"
LEARNED_FROM = "The run {run} learns from these pictures. Delete that first."

"""All that the Teach tab says of its own accord, as strings.py does for the other tabs."""

LOST = "The app does not answer. It may have been stopped: start it again, nothing is lost."

NOT_A_FORM = "That is no form of this page. Reload it."
NOT_REACHED = (
    "{place} cannot be read or written now: {reason}. Make sure that it is there, has room, and "
    "may be written, and try again."
)
A_FILE = "A file"

# Navigation
ALL_RUNS = "All runs"
NEW_RUN = "Teach something new"

# What to teach
WHAT_TO_TEACH = "What to teach"
KIND = "What shall it learn?"
KINDS = {
    "style": (
        "A style",
        "An addition to the model, which itself stays as it is (LoRA): the surest way, and a small "
        "file.",
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
NAME_IT = "Name it above, and the plan follows."
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
ALONE = "Nothing is drawn here while it trains, so that it has all of the memory"
DRAWING_WAITS = "Nothing is drawn meanwhile: it has all of the memory."
DRAWING_GOES_ON = "One can draw meanwhile; both are slower then."
TOO_MUCH_MEMORY = "That is more than is free. Close something, or add one of these options:"
SHORT_OF_PICTURES = (
    "It ends before its time is over: in more steps, {count:,} pictures would be learned by heart."
)
DISK_OF = "{disk} at most"
COMMAND_LINE = "The same in a shell"
STARTED = "It is on its way."
NOT_TAUGHT_HERE = "The settings of {name} are not known: it was not started here."
LONG_OPTIONS = "More than {limit:,} characters of options are too many."
UNREAD_OPTIONS = "The options cannot be read ({reason}). Close the quotes."
OWN_OPTION = "{option} is decided by the page. Leave it out."
NO_OPTION = "{word} is no option: begin with two dashes, as in --seed 7."

# A run, while it trains and after
STATES = {
    "queued": ("Waiting", "It starts as soon as nothing else trains."),
    "starting": ("Starting", "The model is loaded, and the pictures are encoded."),
    "training": ("Training", "Closing the page, or the app, does not end it."),
    "stopping": ("Stopping", "It saves its state after this step, and ends."),
    "paused": ("Paused", "Its state is saved. Resume goes on as if it had never stopped."),
    "killed": (
        "Broken off",
        "It was killed, or the machine went down. Resume goes on from step {saved:,}, which was "
        "saved last.",
    ),
    "failed": ("Failed", "Once that is mended, Resume goes on from step {saved:,}."),
    "finished": ("Finished", "The model is ready."),
    "scoring": ("Being scored", "The model is ready, and is compared with its base."),
    "draft": ("Not started", "It was taken out of the queue."),
}
SUSPENDED = (
    "Its process is suspended, as by Ctrl-Z, and takes no step: type fg in the terminal where it "
    "was started, or kill -CONT {pid} in another."
)
NOTHING_SAVED = "Nothing is saved yet: Resume begins anew."
IN_A_SHELL = "It was started in a shell. Go on with it there, by the command below."
OF_NEWER_VERSION = (
    "A newer version of this program made it, and knows what can be done with it. It is shown as "
    "far as this one understands it."
)
STEP_OF = "step {step:,} of {steps:,}"
STEP = "step {step:,}"
TIME_LEFT = "about {time} left"
SPEED = "{speed} pictures/s"
MEMORY_USED = "{size} of memory"
DEVICE_MEMORY_USED = "{size} on the device"
PROGRESS = "Steps done"
SAID = "{name}: {state}"

PAUSE, TAKE_OUT = "Pause", "Take out"
RESUME, START_NOW = "Resume", "Start"
STOP_AND_KEEP = "Stop and keep"
STOP_AND_KEEP_SURE = "Really end it here, with a model of this step"
DRAW_NOW = "Draw with what there is now"
DRAW_WITH_IT = "Draw with it"
IS_IT_BETTER = "Is it better?"
GO_ON, MORE_STEPS = "Train longer", "more steps"
DO = "What to do"
TEACH_ANOTHER = "Another with these settings"
DELETE, DELETE_SURE = "Delete", "Really delete the run and its model"

BEFORE_AND_NOW = "Before and now"
BASE_MODEL, NOW_AT = "base model", "now, step {step:,}"
AT_STEP = "step {step:,}"
BASE = "base"
SEED_IS = "seed {seed}"
TIMELINE = "Earlier and later pictures"
NO_SAMPLES_YET = "Pictures appear here once they are drawn."
PICTURE_OF = "{prompt}: {whose}"
MORE_SAMPLES = "and {count:,} more"

CURVES = "Curves"
CURVE_TITLES = {
    "loss": "training loss",
    "held_out_loss": "loss on held-out pictures",
    "clip_score": "CLIP score of the pictures",
    "kept_score": "CLIP score of what the base knew",
}
NO_CURVES_YET = "Curves appear here after the first steps."
VERDICT = "What its pictures say"
LOG_LINES, NO_LOG = "Log", "Its log is in the terminal where it was started."
NOTHING_LOGGED = "Nothing is in its log."
COMMAND_OF_RUN = "The same in a shell"
COPY, COPIED = "Copy", "Copied"

# All runs
RUNS = "Runs"
NO_RUNS = "Nothing has been taught yet."
SHOW_MORE_RUNS = "Show more of {count:,}"
QUEUE = "Waiting for their turn"
FIRST_IN_QUEUE = "To the front"
NO_PICTURE_YET = "no picture yet"
CLIP_SCORE_IS = "CLIP score {score}"
HELD_OUT_LOSS_IS = "held-out loss {score}"
COUNTING = "size is being counted"
COMPARE_RUNS = "Compare those ticked"
COMPARE_HOW = "Tick two or three to see them side by side."
TICK = "Compare {name}"
SETTINGS_OF = "Start another"
SETTINGS_OF_RUN = "Start another with the settings of {name}"
DELETE_RUN = "Delete {name}"

# Side by side
SIDE_BY_SIDE = "Side by side"
TWO_OR_THREE = "Tick two or three runs to compare."
SETTINGS_THAT_DIFFER = "Settings that differ"
NO_SETTINGS_DIFFER = "All known settings are the same."
SETTING = "setting"
UNKNOWN = "unknown"
SAME_PROMPTS = "The same prompts and seeds"
NO_SAME_PROMPTS = "They drew no prompt with the same seed."
PROMPT_AND_SEED = "prompt"
RUN_AT_STEP = "{name}, step {step:,}"
NO_SUCH_SAMPLE = "none"
NO_VERDICT = "Nothing was measured."
YES, NO, UNSET = "yes", "no", "unset"
# Pictures
PICTURES = "Pictures to learn from"
NEW_SET = "my pictures"
SET_NAME = "Name of these pictures"
BEGIN = "Without files: name a path"
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
WHOLE_PATH = "Write the whole path, from the root on, as in /data/photos."
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
UNCAPTIONED = "{count:,} of them without a caption"
COUNT_LEFT_OUT = "{count:,} left out"
NO_PICTURES_YET = "No picture is here yet."
LEAVE_OUT_FAULTY_ONE = "Leave this one out"
LEAVE_OUT_FAULTY = "Leave these {count:,} out"
SURE_LEAVE_OUT_ONE = "Really leave it out"
SURE_LEAVE_OUT = "Really leave {count:,} out"
CAPTION_ALL = "Call them all “{name}”"
CAPTION_ALL_ABOUT = "That is enough where all show one subject."
CHECK_AGAIN = "Check again"
USE_ONE = "Use this picture"
USE_THEM = "Use these {count:,} pictures"
READY = "They are ready."
NEXT = "Next: what to teach"
SHOWN = "Which pictures are shown"
SHOW_ALL = "All {count:,}"
SHOW_LOOK = "To look at {count:,}"
SHOW_LEFT_OUT = "Left out {count:,}"
TRIGGER = "A word put before all captions"
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

# Is it better?
RESULTS_OF = "Is {name} better?"
BACK_TO_RUN = "Back to the run"
NO_MODEL_YET = "It has nothing to draw with yet: wait for its first checkpoint."
FINISHED_MODEL = "The finished model, after {step:,.0f} steps."
CHECKPOINT_MODEL = "What it has learned so far: its state after {step:,.0f} steps."
STILL_TRAINING = "It is still being trained."
BEST_WAS = "Its held-out pictures were best after step {step:,.0f}, which is kept in best/."
BASE_GONE = "The model that it was trained from ({base}) is not here: it can draw, not be compared."
BASE_GONE_LORA = (
    "It draws on top of the model that it was trained from ({base}), which is not here."
)
UNKNOWN_BASE = "unknown"
WITH_THE_MODEL = "With the model"
TO_DRAW, TO_COMPARE, TO_VOTE = "Draw with it", "Compare with its base", "Blind vote"
SHARE_LINK, LINK_COPIED = "Link to the page with this model", "Link copied"
DOWNLOAD_ZIP = "Download the model (a zip of its folder)"
DOWNLOAD_ONE_FILE = "Download as one file for other programs"
DOWNLOAD_LORA = "Download the LoRA for other programs"
MEASURE, MEASURE_AGAIN = "Measure thoroughly", "Measure again, thoroughly"
MEASURE_QUICKLY = "Take a quick look"
NOT_MEASURED_YET = (
    "Not measured yet. The model and its base draw the same prompts at the same seeds; a scorer "
    "that knows neither says how well they follow, and whether pictures of yours were copied."
)
MEASURING_TAKES = (
    "That takes {time}, and a quick look {quick}: 8 prompts with a picture each, without those of "
    "what the base knew. It shows great differences only."
)
SOME_TIME, LESS_TIME = "a while", "less"
SCORING_NOW = "Its pictures are being drawn and scored"
SCORING_BESIDE = "You may close the page or draw meanwhile; the scores appear here."
CALL_OFF, CALL_OFF_SURE = "Call it off", "Really call it off"
SCORING_FAILED = "It could not be measured: {sentence}"
SCORING_CUT_SHORT = "The measuring ended before it was done. Start it again."
HARDEST = "What it learned worst"
HARDEST_ABOUT = (
    "Pictures of yours with the highest loss at the end: a wrong caption, a damaged picture, or "
    "something that needs more of its kind."
)
LOSS_IS = "loss {loss}"
REPORTS = "Reports"
REPORTS_OF_RUN = {
    "report.html": "How it was trained",
    "scores.html": "All scores, the pictures side by side, and those nearest to pictures of yours",
}
NO_REPORT = "There is no such report."
NO_LORA = "This run has written no LoRA for other programs."

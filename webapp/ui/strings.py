"""All that the page says of its own accord: who translates it translates this file.

What stands in braces is filled in. Sentences about bad input that the commands say as well are
where it is judged. No gradio.I18n: it translates what a page is laid out with, and no sentence
that the server sends later.
"""

FINE_TUNED = "learned from {pictures:,} pictures, on top of {base}"
FINE_TUNED_ON_ONE = "learned from 1 picture, on top of {base}"
# What a model is asked of which nobody knows what it has learned.
ANYTHING = (
    "a lighthouse on a cliff in a storm, oil painting",
    "a cat asleep on a blue sofa",
    "a bowl of fruit on a wooden table",
    "a snowy mountain behind a lake at sunrise",
    "a red bicycle leaning against a brick wall",
    "a wooden sailing ship on the open sea",
)
DRAW, COMPARE, SCORES, MODEL, HOW = "Draw", "Compare", "Scores", "The model", "How it works"
TEACH = "Teach"
SLIDER, VOTE, GRID = "Slider", "Blind vote", "Grid"  # ways to compare

# Draw
PROMPT = "What shall I draw?"
GENERATE = "Generate"
CANCEL = "Cancel"
LIVE = "As you type"
LIVE_INFO = "Draws while you type, in few steps. Generate draws it in full."
LIVE_HINT = "Drawn in few steps: Enter draws it in full."
LIVE_UNOPENED = "This model is not open. Generate opens it, and then it draws as you type."
NO_PICTURE = "Your picture appears here."
DOWNLOAD, DOWNLOAD_ALL = "Download", "Download all"
ANOTHER = "Another"
VARIATIONS_BUTTON = "Variations"
COMPARE_WITH_BASE = "Compare with base"
NO_SHOWN = "There is no picture to compare. Draw one."
TRY = "Try"
EXAMPLES = "Examples"
SETTINGS = "Settings"
TAKE_SETTINGS = "Take the settings of a picture, or drop it anywhere"
LAST_DRAWINGS = "Your last drawings"
CLEAR = "Clear"
CLEAR_LAST_DRAWINGS = "Clear your last drawings"
UNDO_CLEAR = "Undo: show them again"
SHOW_AGAIN = "Show again: {prompt}"
SHOW_ALL_AGAIN = "Show again, {count} pictures: {prompt}"
PICTURE_LOST = "The picture is gone, and its settings are back: Generate draws it again."
PICTURES_LOST = (
    "Some of its pictures are gone; its settings are back, and Generate draws all again."
)

# The picture that chat programs show of a link
NO_PREVIEW = "This model brings no pictures along."

# Which model draws
PICK_MODEL = "Model"
NO_SUCH_MODEL = "There is no such model to choose. Choose one of the list."
MODEL_NOT_HERE = "It was drawn by {model}, which is not here. Generate draws it by another model."
LORA_SCALE = "Strength of the LoRA"
LORA_SCALE_INFO = "0 is the base model alone, 1 is what was learned, 2 is twice as much."

# Settings
PRESET = "How"
FAST, BALANCED, BEST, CUSTOM = "fast", "balanced", "best", "custom"
NEGATIVE_PROMPT = "What to avoid"
NUM_IMAGES = "Pictures"
STEPS = "Steps"
GUIDANCE = "Guidance"
SCHEDULER = "Scheduler"
WIDTH, HEIGHT = "Width", "Height"
PROMPT_WEIGHTS = "Brackets are weights"
PROMPT_WEIGHTS_INFO = (
    "(word:1.3) counts 1.3 times as much, (word) 1.1 times, [word] 1.1 times less; \\( is a "
    "bracket. Unticked, brackets are words like any others."
)
GUIDANCE_STOP = "Guidance up to"
GUIDANCE_STOP_INFO = (
    "A share of the steps: those after it take half the time. 1 guides them all. A drawing that "
    "starts from a picture takes the last ones."
)
CACHE_INTERVAL = "Whole model every so many steps"
CACHE_INTERVAL_INFO = "Between them most of it is spared: faster, and less exact. 1 spares nothing."
SEED = "Seed"
HOW_FAR = "Variations: how far from the seed's picture"
NOT_FAR = "At 0 all variations are the seed's own picture. Choose more below Settings."
VARIED_SEED = "A variation cannot be varied: these are others of the picture of seed {seed}."
NEW_SEED = "New seed each time"
SEED_IS_KEPT = "seed {seed} kept"
VARIATION_KEPT = "and variation {seed} of it, strength {strength}"
VARIATION_END = "end it"

# The page that asks for the password
PASSWORD, OPEN = "Password", "Open"
ASK_FOR_PASSWORD = "The password, please."
WRONG_PASSWORD = "That is not the password."
RATE_LIMITED = "Too many wrong passwords are being tried. Try again in {seconds} s."
PASSWORD_TOO_SLOW = "The password came too slowly. Send it in one go."

# What a drawing starts from
START_FROM = "Start from a picture"
START_HINT = "Drop a picture on the sheet, choose one, or sketch on it. Its middle is used."
START_SHEET = "The picture to start from"
START_CHOOSE = "Choose a picture"
START_PEN, START_WIDTH = "Pen", "Width"
START_UNDO, START_REMOVE = "Undo", "Remove"
STRENGTH = "Strength"
STRENGTH_INFO = "How much is redrawn: a little keeps the picture, a lot only its large shapes."
START_PICTURE, START_SKETCH = "your picture", "your sketch"
START_UNSHOWN = "This browser cannot show it. It is sent as it is."
START_UNREADABLE = "This browser cannot read it. Choose a PNG, JPEG or WebP file."
START_SENDING = "Sending the picture ..."
START_UNSENT = "The picture could not be sent. Try again."
START_NEEDED = "It started from a picture (SHA-256 {digest}...). Start from that one again."

# How a drawing goes on
STARTING = "Starting ..."
WAITING = "Waiting for {ahead} before you."
HELD = "Waiting until a training run is over, which needs the memory."
GETTING_READY = "Getting ready ..."
STEP_OF = "Step {done} of {total}"
PACE = "{each:.1f} s a step · {left} s left"
CANCELLED = "Cancelled."
NOT_KEPT = "The picture could not be kept ({reason}). Tell whoever runs this page."

# A page that was open while the app was started again
RESTARTED = "The app has been started again since this page was opened."
RELOAD = "Reload the page"

# What has been drawn
ONE_SEED = "Seed {first}"
SEEDS = "Seeds {first} to {last}"
KEEP_SEED, SEED_KEPT = "keep it", "kept"
ONE_VARIATION = "variation {first}, strength {strength:g}"
VARIATIONS = "variations {first} to {last}, strength {strength:g}"
FROM_PICTURE = "from your picture, strength {strength:g}"
AT_LORA_SCALE = "LoRA strength {scale:g}"
GUIDED_UP_TO = "guided up to {share:.0%} of the steps"
WHOLE_EVERY = "the whole model every {steps} steps"
ONE_STEP_DONE, STEPS_DONE = "1 step", "{steps} steps"
SECONDS = "{seconds:.1f} s"
LINK, LINK_COPIED = "link to it", "link copied"
SEED_OF_PICTURE, VARIATION_OF_PICTURE = "seed {seed}", "variation {seed}"
SETTINGS_BACK = "The settings of that picture are back, and its seed {seed} is kept."
LINK_WITHOUT_PROMPT = "The link names no prompt."
LINK_INIT_IMAGE = "The link names a picture to start from that cannot be one. Choose it here."

# How much of a prompt is read
TOKENS = "{count} of {limit} tokens"
CHARACTERS = "{count:,} of {limit:,} characters"
TOKENS_UNREAD = "Not read: “{unread}”"
PROMPT_UNREAD = "The prompt is too long; not read: “{unread}”."

# What the model has learned
NEVER_SEEN = "Never seen in training: {unknown}"
LEARNED = "Words that it has learned"

# Gallery
GALLERY = "Gallery"
SEARCH_WORDS, SEARCH = "Words that their prompts have", "Search"
NEWER, OLDER = "Newer", "Older"
GALLERY_EMPTY = "What you draw appears here."
GALLERY_PAGE = "Page {number} · pictures in all: {total:,}"
NONE_FOUND = "No picture has these words."
SEARCHED = "Only the newest {limit:,} are searched."
DRAW_AGAIN, DRAW_AGAIN_OF = "Settings", "Settings of: {prompt}"
DELETE, DELETE_SURE = "Delete", "Really delete"
DELETE_SURE_OF = "Really delete: {prompt}"
DELETED = "The picture is deleted."

# Compare
BOTH_DRAW = "Both draw"
SEED_OR_NEW = "Seed (empty: a new one)"
PAIR = "What is compared"
PAIR_OF = "{model} against {base}"
COMPARE_BUTTON = "Compare"
NO_PICTURES = "Your pictures appear here."
SIDES = "{base} left, {model} right"

# Blind vote
VOTE_ASKED = (
    "Two pictures of the same words and seed, one by the model and one by its base. "
    "Say which is better, and you learn whose they are."
)
VOTES_KEPT = "Votes are kept, with their words."
VOTE_PROMPT = "Both draw (empty: words of ours)"
VOTE_DRAW = "Draw a pair"
LEFT, SAME, RIGHT = "Left", "About the same", "Right"
LEFT_PICTURE, RIGHT_PICTURE = "Left picture", "Right picture"
PICTURE_OF_PAIR = "Picture {number} of 2"
WHICH_IS_BETTER = "Which is better?"
CHOSEN = "You chose “{choice}”. Left: {left}. Right: {right}. Seed {seed}."
YOUR_VOTES = "Your votes on {model}"
ALL_VOTES = "All votes on {model}"
NONE_DECIDES = "{whose}: none that decides; ties: {ties}."
STANDING = (
    "{whose}: it won {wins} of {decided}; ties: {ties}. "
    "Win rate {share}, with {confidence} confidence {low} to {high}."
)
TIES_LEFT_OUT = (
    "Ties are left out. While an interval holds {half}, its votes cannot tell; "
    "one may look after every vote."
)
PERCENT = "{number}\N{NO-BREAK SPACE}%"

# Grid
GRID_PROMPTS = "Rows: a prompt on each line, {limit} at most"
GRID_COLUMNS = "Columns: {limit} at most"
GRID_DRAW = "Draw all"
GRID_TABLE = "Pictures, prompts by models"
BASE, FINAL = "base", "final"  # the first and the last column
COLUMN_OF = "{name}, column {number} of {count}"
GRID_DRAWN = "Seed {seed} · {steps} steps · pictures: {pictures}"
TOO_MANY_PROMPTS = "{count} prompts are too many. Write {limit}."
NO_COLUMN = "No column is chosen. Tick at least one."
TOO_MANY_COLUMNS = "{count} columns are too many. Tick {limit}."

# Scores
SCORES_OF = "Scores on {prompts} prompts ({name})"
SCORES_TABLE = "Scores on {name}"
MODEL_COLUMN, DIFFERENCE = "model", "difference"
CONFIDENCE = "in small print: where the true number lies, with {share} confidence"
RANGE = "{low} to {high}"
ABOUT = "\N{ALMOST EQUAL TO} {number}"
CLIP_SCORE = "follows its words (CLIP score)"
KEEPING_SCORE = "follows words that its base knew (CLIP score)"
STYLE = "likeness to its training pictures"
DISTANCES = {
    "kid": "distance to its training pictures (KID; less is nearer)",
    "cmmd": "the same, measured in another way (CMMD)",
}
CSD_STYLE = "likeness to its training pictures (CSD)"
LIKENESSES = {
    "clip_i": "likeness to its subject (CLIP-I)",
    "dino": "likeness to its subject (DINO)",
}
JUDGE_DISTANCES = {
    "csd": "distance to its training pictures (KID by CSD)",
    "dinov2": "distance to its training pictures (KID by DINOv2)",
}
FID = "distance to its training pictures (FID)"
DINOV2_FRECHET = "distance to its training pictures (Fréchet by DINOv2)"
COPIES = "copies of training pictures"
SSCD_COPIES = "copies of training pictures (SSCD)"
BINDING = "two colours on the right things"
COLOURS_SEEN = "the colour that the prompt names"
SCORED_BY = "Scored by {scorer}, a network that tells how well a picture fits its words."
SHARE = "{hits} of {pictures}"
# Whether a score is a good one: by its scorer's own scale, never by itself.
SCALE = (
    "Pictures that have nothing to do with their words get {floor:.1f} from it: so the model's own "
    "score with their captions exchanged. Training pictures with their own captions get "
    "{ceiling:.1f}."
)
STANDS_BETWEEN = "Between the two the model stands at {share}."
STANDS_ABOVE = "The model stands above the training pictures."
STANDS_BELOW = "The model stands no higher than exchanged captions."
BASE_BETWEEN = "Its base stands at {share}."
TELLS_NOTHING = (
    "Training pictures with their own captions score no higher: this scorer cannot judge such "
    "pictures."
)
FLOOR_ONLY = (
    "With their captions exchanged the model's pictures get {floor:.1f} from it: so score pictures "
    "that have nothing to do with their words. How far up one could get is not known, as no "
    "training pictures were scored."
)
NO_SCALE = (
    "Whether that is much is not known: {command} also scores exchanged captions and training "
    "pictures, between which a score stands."
)
SCALE_NAME = "Scale of the scorer: {marks}"
EXCHANGED, TRAINING = "captions exchanged", "training pictures"
CURVES = "Along the training"
CURVE_NAMES = {
    "clip_score": "CLIP score of the validation pictures",
    "held_out_loss": "error on pictures that it has not learned from (loss; less is better)",
    "kept_score": "CLIP score on words that its base knew",
}
PICTURES_BESIDE = "Side by side"
BESIDE = "Above {base}, below the model: the same words and the same seed."
MORE = "More"
REPORTS = {"report.html": "How it was trained", "scores.html": "All scores, with their pictures"}
NOT_MEASURED = (
    "Nobody has measured this model yet. {command} compares it with its base, and the scores "
    "appear here."
)

# What chat programs show of a link
LINK_INVITES = "Say what you want to see, and it draws it."
LINK_PICTURE = "Pictures that {title} has drawn"

# How it works
HOW_BEFORE = (
    "The model has seen many pictures with words beside them. From each it learned one thing "
    "only: to tell noise from picture. Noise was poured over the picture, a little or a lot, and "
    "the model had to say which part of what it saw was noise, with the words as a hint.",
    "To draw, it starts from nothing but noise, which the seed decides: the same seed is the same "
    "noise, and with the same words and settings the same picture. It takes away a part of what "
    "it believes to be noise, looks again, and so on, some twenty times. At first it can see no "
    "more than large shapes and colours; details come last. This is how this model does it:",
)
HOW_AFTER = (
    "At each step it guesses twice, with your words and without, and goes further in the "
    "direction in which the words pull. How far is called guidance: too little and the words "
    "hardly count, too much and colours burn.",
    "All this happens on a small, compressed image; a second network, the decoder, turns it into "
    "pixels at the end. No part of it looks up, cuts out or glues together pictures that it has "
    "seen. Nor does a second network judge its pictures, as is often said: it learned only from "
    "how far its guesses of the noise were off.",
)
HOW_HARD = "What is hard about teaching it"
HOW_HARD_TEXTS = (
    "Few pictures are soon learned by heart, and then it repeats them. So what it draws is "
    "compared with what it learned from, and captions that it has never seen say whether it draws "
    "new things.",
    "Whoever learns one thing only forgets the rest: asked for a car, it would draw what it knows "
    "best. So it can rehearse while it learns, on pictures that it drew itself before.",
    "Whether it got better is hard to see from a few pictures, which may be luck. The Scores tab "
    "draws the same prompts by this model and by the one it was taught from, and says how sure the "
    "difference is.",
)
HOW_PROMPT = "Show it with other words"
HOW_SHOW = "Show"
NOISE, STEP, FINISHED = "Nothing but noise", "Step {done}", "Finished"
STAGE = "{stage}: {prompt}"  # of a picture that cannot be seen

"""What gradio would lose, keep in memory, or work out again and again."""

import os
import re
from collections import OrderedDict

import gradio.routes
import gradio.utils
from gradio.blocks import Block, BlocksConfig
from gradio.state_holder import SessionState
from jinja2 import BaseLoader, Environment

SESSIONS = 100  # visitors that are remembered, at 80 KB each; 20 can wait, others lose nothing
NEVER = "1000000000"


def mend_gradio() -> None:
    """To be called before the page is laid out."""
    gradio.utils.diff = _whole
    # Else it keeps the last 10,000 events and after each one makes statistics of all of them.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", NEVER)
    gradio.utils.LRUCache.__delitem__ = _forget
    BlocksConfig.__copy__ = _copy
    SessionState.__setitem__ = _set_item
    if not isinstance(gradio.routes.templates.env.loader, HeadTags):
        gradio.routes.templates.env.loader = HeadTags(gradio.routes.templates.env.loader)


class HeadTags(BaseLoader):
    """The page's frame with tags of ours where gradio has its own name and banner, twice, for what
    shows a preview of a link; `head` of the server's state makes them."""

    TAGS = re.compile(r"<meta\s+(?:property=\"og:|name=\"twitter:)[^>]*>\s*")
    OURS = (
        "{% if request.app.state.head is defined %}{{ request.app.state.head(request) }}{% endif %}"
    )

    def __init__(self, gradios: BaseLoader):
        self._gradios = gradios

    def get_source(self, environment: Environment, template: str) -> tuple:
        source, *rest = self._gradios.get_source(environment, template)
        if template == "frontend/index.html":
            source = self.TAGS.sub("", source).replace("</head>", f"{self.OURS}\n</head>", 1)
        return source, *rest


class VisitConfig(BlocksConfig):
    """The page as one visit has it.

    gradio describes all of its elements when the visit begins, and each again at each update, for
    links to the whole state of a page. Here are none, and that was most of what a server with many
    visitors did.
    """

    @staticmethod
    def config_for_block(*_) -> dict:
        return {}


_gradios_copy, _gradios_set_item = BlocksConfig.__copy__, SessionState.__setitem__


def _copy(page: BlocksConfig) -> BlocksConfig:
    made = _gradios_copy(page)
    made.__class__ = VisitConfig
    return made


def _set_item(session: SessionState, key: int, value: object) -> None:
    """Remember an updated element by the number that it has on the page.

    gradio gives each update of an element a number of its own; under it the element's next value
    is remembered as well, and so a visit grows by some copies with each drawing.
    """
    if isinstance(value, Block):
        value._id = key
    _gradios_set_item(session, key, value)


def _forget(kept: gradio.utils.LRUCache, key: str) -> None:
    """Delete what is kept under a key.

    Where two listen to one session, gradio deletes its messages as each of them goes, and would
    stumble over the second time.
    """
    if key in kept:
        OrderedDict.__delitem__(kept, key)


def _whole(old: object, new: object) -> list:
    """What makes the next update of an element out of its last.

    gradio's own names the parts that differ, and the page edits the last update in place. A page
    that is too busy to have shown that one yet then shows what is left of it: a picture followed by
    "nothing new here" was never seen.
    """
    return [] if old == new else [["replace", [], new]]

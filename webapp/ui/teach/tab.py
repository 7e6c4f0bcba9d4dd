"""The Teach tab: from your pictures to your model. Its content are fragments; see fragments.py."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from starlette.routing import Route

from core.html import template
from webapp.ui.teach import strings
from webapp.ui.teach.fragments import FOLDER

SCRIPT = Path(__file__).with_name("teach.js")
SHELL = template(f"{FOLDER}/shell.html")


class TeachTab:
    """The owner's own tab. Components are created in the current Blocks context."""

    def __init__(self) -> None:
        gr.HTML(
            SHELL.render(words=strings),
            js_on_load=SCRIPT.read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="teach",
        )


def teach_routes() -> list[Route]:
    """All routes of the tab; none exists where the tab does not."""
    return []

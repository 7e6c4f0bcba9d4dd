"""What people read on the page stands in one file, so that it can be translated."""

import ast
import re
from pathlib import Path

import pytest

from webapp.ui.theme import CSS

PAGE = Path(__file__).parent.parent / "webapp" / "ui"
SHOWN = {"label", "info", "placeholder", "value"}  # arguments that are read on the page
SHOWS = {"Button", "Tab", "HTML", "Accordion", "DownloadButton", "UploadButton", "note"}
READ_ALOUD = re.compile(r'(?:alt|title|aria-label|placeholder)="([^"]*)')
UNREAD = re.compile(r"<code>.*?</code>|^[^<>]*>|<[^>]*(?:>|$)")  # commands, tags and parts of tags
WORD = re.compile(r"[^\W\d_]")
WORDS = re.compile(r"[^\W\d_]{2,} [^\W\d_]{2,}")
LOGGED = {"warning", "compile"}  # functions whose words nobody reads on the page
LOGGED_THERE = {"examples.py": {"UserError"}}


def text_of(node: ast.AST) -> str | None:
    """What is written there; braces stand for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "{}" for part in node.values)
    return None


def is_read(text: str) -> bool:
    """Whether there are words for people: two in a row, or one between or within tags of HTML."""
    if "=>" in text or "{%" in text:  # a script, a template
        return False
    bare = UNREAD.sub(" ", text)
    in_html = (bare if bare != text else "") + "".join(READ_ALOUD.findall(text))
    return bool(WORDS.search(bare) or WORD.search(in_html))


def strings_to_read(node: ast.AST, logged: set[str] = LOGGED) -> list[str]:
    """In a part of a module: all but docstrings and words for the log."""
    called = getattr(node, "func", None)
    name = getattr(called, "attr", getattr(called, "id", ""))
    if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or name in logged:
        return []
    if (text := text_of(node)) is not None:
        filled = node.values if isinstance(node, ast.JoinedStr) else ()
        inner = [n for n in filled if not isinstance(n, ast.Constant)]
        return [text] * is_read(text) + [t for n in inner for t in strings_to_read(n, logged)]
    found = [t for child in ast.iter_child_nodes(node) for t in strings_to_read(child, logged)]
    if isinstance(node, ast.Call):
        given = [each.value for each in node.keywords if each.arg in SHOWN]
        given += node.args[:1] if name in SHOWS else []
        found += [t for t in map(text_of, given) if t and WORD.search(UNREAD.sub("", t))]
    return found


@pytest.mark.parametrize(
    "source",
    ['gr.Tab("Draw")', 'gr.Slider(label="Steps")', 'x = "Which is it?"', 'note("Gone.")',
     'f"<p>{a} of {b}</p>"', "f'<img src=\"{a}\" alt=\"{b} picture\">'",
     "x = '<ul aria-label=\"Examples\">'", 'UserError(f"{n} are too many. Write {m}.")'],
)  # fmt: skip
def test_a_string_for_people_is_distinguished_from_others(source):
    assert strings_to_read(ast.parse(source))


@pytest.mark.parametrize("path", sorted(PAGE.rglob("*.py")), ids=lambda path: path.name)
def test_the_words_of_the_page_stand_in_one_file(path):
    logged = LOGGED | LOGGED_THERE.get(path.name, set())
    found = strings_to_read(ast.parse(path.read_text(encoding="utf-8")), logged)
    assert bool(found) == (path.name == "strings.py"), found


@pytest.mark.parametrize("path", sorted(PAGE.rglob("*.js")), ids=lambda path: path.name)
def test_the_scripts_of_the_page_hold_no_words(path):
    code = re.sub(r"//.*", "", path.read_text(encoding="utf-8"))
    strings = re.findall(r'"([^"]*)"|`([^`]*)`', code)
    assert not [text for pair in strings for text in pair if is_read(text)]


@pytest.mark.parametrize("path", CSS, ids=lambda path: path.name)
def test_the_style_of_the_page_holds_no_words(path):
    content = re.findall(r'content: "([^"]*)"', path.read_text(encoding="utf-8"))
    assert not any(WORD.search(re.sub(r"\\[0-9a-f]+", "", text)) for text in content)


def test_the_page_that_asks_for_the_password_holds_no_words():
    source = (PAGE.parent / "templates" / "password.html").read_text(encoding="utf-8")
    template = re.sub(r"<style>.*?</style>|\{\{.*?\}\}", "", source, flags=re.S)
    assert "<label" in template and not WORD.search(re.sub(r"<[^>]*>", "", template))
    assert not any(map(WORD.search, READ_ALOUD.findall(template)))


@pytest.mark.parametrize("path", CSS, ids=lambda path: path.name)
def test_no_selector_of_the_page_has_a_comma_in_brackets(path):
    """Gradio splits selectors at every comma to put its own class before each part."""
    style = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    assert style.count("{") == style.count("}")
    found = [each.strip() for each in re.findall(r"([^{}]+)\{", style)]
    selectors = [each for each in found if not each.startswith("@")]
    assert len(selectors) > 20 and not [each for each in selectors if re.search(r"\([^()]*,", each)]

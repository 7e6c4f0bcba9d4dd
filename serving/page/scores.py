"""What the page tells about the model's scores."""

from __future__ import annotations

from html import escape

from core.words import scorer_of
from serving.page import words

COMMAND = "<code>python metrics.py --model FOLDER --write_run</code>"


def scores_page(run: dict) -> str:
    """HTML: what metrics.py wrote into run.json, in words; what to do where there is nothing."""
    entries = [
        (name, entry) for name, entry in (run.get("scores") or {}).items()
        if isinstance(entry, dict) and isinstance(entry.get("clip_score"), int | float)
    ]  # fmt: skip
    if not entries:
        return f"<p>{words.NOT_MEASURED.format(command=COMMAND)}</p>"
    return "".join(_scores(name, entry) for name, entry in entries)


def _scores(name: str, entry: dict) -> str:
    """The verdict in sentences, and the numbers behind it."""
    rows = [(words.CLIP_SCORE, f"{entry['clip_score']:.2f}")]
    kept, memory, binding, identity = (
        entry[key] if isinstance(entry.get(key), dict) else {}
        for key in ("keeping", "memorisation", "binding", "identity")
    )
    if isinstance(kept.get("clip_score"), int | float):
        rows.append((words.KEEPING_SCORE, f"{kept['clip_score']:.2f}"))
    if memory:
        rows.append((words.COPIES, _share(memory, "copies")))
    if binding:
        rows.append((words.BINDING, _share(binding, "right")))
    rows.append((words.SCORER, scorer_of(identity)))
    cells = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>'
        for label, text in rows
    )
    verdict = entry["verdict"] if isinstance(entry.get("verdict"), list) else []
    told = "".join(f"<p>{escape(str(one))}</p>" for one in verdict)
    title = escape(words.SCORES_OF.format(prompts=entry.get("prompts", ""), name=name))
    return f"<h2>{title}</h2>{told}<table>{cells}</table>"


def _share(entry: dict, hits: str) -> str:
    return words.SHARE.format(hits=entry.get(hits), pictures=entry.get("pictures"))

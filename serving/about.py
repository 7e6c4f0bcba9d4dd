"""What the page tells about the model: its scores, its card, and how a picture comes to be."""

from __future__ import annotations

from html import escape

HOW = """
<h2>How it works</h2>
<p>The model has seen many pictures with words beside them. From each it learned one thing only: to
tell noise from picture. Noise was poured over the picture, a little or a lot, and the model had to
say which part of what it saw was noise, with the words as a hint.</p>
<p>To draw, it starts from nothing but noise, which the seed decides: the same seed is the same
noise, and with the same words and settings the same picture. It takes away a part of what it
believes to be noise, looks again, and so on, some twenty times. At first it can see no more than
large shapes and colours; details come last.</p>
<p>At each step it guesses twice, with your words and without, and goes further in the direction in
which the words pull. How far is called guidance: too little and the words hardly count, too much
and colours burn.</p>
<p>All this happens on a small, compressed image; a second network, the decoder, turns it into
pixels at the end. No part of it looks up, cuts out or glues together pictures that it has seen.</p>
"""


def scores_page(run: dict) -> str:
    """HTML: what metrics.py wrote into run.json, in words; what to do where there is nothing."""
    entries = [
        (name, entry) for name, entry in (run.get("scores") or {}).items()
        if isinstance(entry, dict) and isinstance(entry.get("clip_score"), int | float)
    ]  # fmt: skip
    if not entries:
        return (
            "<p>Nobody has measured this model yet. <code>python metrics.py --model FOLDER "
            "--write_run</code> compares it with its base, and the scores appear here.</p>"
        )
    return "".join(_scores(name, entry) for name, entry in entries)


def _scores(name: str, entry: dict) -> str:
    """The verdict in sentences, and the numbers behind it."""
    rows = [("CLIP score", f"{entry['clip_score']:.2f}")]
    kept, memory, binding = (
        entry[key] if isinstance(entry.get(key), dict) else {}
        for key in ("keeping", "memorisation", "binding")
    )
    if isinstance(kept.get("clip_score"), int | float):
        rows.append(("on what its base knew", f"{kept['clip_score']:.2f}"))
    if memory:
        rows.append(("copies of training pictures", _share(memory, "copies")))
    if binding:
        rows.append(("two colours on the right things", _share(binding, "right")))
    rows.append(("scorer", str((entry.get("identity") or {}).get("scorer", ""))))
    cells = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{escape(text)}</td></tr>'
        for label, text in rows
    )
    told = "".join(f"<p>{escape(str(one))}</p>" for one in entry.get("verdict") or ())
    title = escape(f"{entry.get('prompts', '')} prompts: {name}")
    return f"<h2>{title}</h2>{told}<table>{cells}</table>"


def _share(entry: dict, hits: str) -> str:
    return f"{entry.get(hits)} of {entry.get('pictures')}"

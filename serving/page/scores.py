"""What the page tells about the model's scores."""

from __future__ import annotations

from html import escape


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

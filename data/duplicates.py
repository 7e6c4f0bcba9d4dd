"""Duplicates among the rows of a data set: the same file, or pictures that look alike."""

from __future__ import annotations

from data.index import Finding, RowIndex

PLACES_NAMED = 4


def note_duplicates(index: RowIndex) -> None:
    """Warn about equal and near-duplicate pictures, above all across training and held-out sets."""
    for content, count, captions, splits in index.ask("""
        SELECT content, COUNT(*), COUNT(DISTINCT caption), COUNT(DISTINCT split) FROM rows
        WHERE content IS NOT NULL GROUP BY content HAVING COUNT(*) > 1 ORDER BY MIN(row)
    """):
        question = "SELECT row, place, split FROM rows WHERE content = ? ORDER BY row LIMIT ?"
        places = list(index.ask(question, content, PLACES_NAMED))
        first, others = places[0][1], [place for _, place, _ in places[1:]]
        named = f"{first} and {', '.join(others)}"
        named += f" and {count - len(places)} more" if count > len(places) else ""
        if captions > 1:
            advice = "have one picture and different captions; keep one row with a list of captions"
        else:
            advice = "are the same, picture and caption; keep one"
        about = (advice, "duplicate", places[0][0])
        index.note(Finding(others[0], f"{named} {advice}", False, places[1][0], *about))
        if splits > 1:
            advice = (
                "are in the training set and in the held-out one, where they would be scored as "
                "new; delete one"
            )
            about = (advice, "duplicate", places[0][0])
            index.note(Finding(others[0], f"{named} {advice}", False, places[1][0], *about))
    for first, second in index.alike():
        question = "SELECT place, split FROM rows WHERE row = ?"
        (other, split), (place, here) = (next(index.ask(question, n)) for n in (first, second))
        index.note(_alike((second, place), (first, other), split == here))


def _alike(here: tuple[int, str], there: tuple[int, str], one_split: bool) -> Finding:
    """A warning about a picture like an earlier one; both by number and place."""
    advice = "; keep the better one" if one_split else ", and one of them is held out; delete one"
    (row, place), (other, earlier) = here, there
    sentence = f"the picture looks like that of {earlier}{advice}"
    return Finding(place, sentence, False, row, advice, "duplicate", other)

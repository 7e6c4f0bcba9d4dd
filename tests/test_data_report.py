import io
import re
from base64 import b64decode
from html import unescape

import pytest
from PIL import Image

from core.errors import UserError
from data.index import Finding, RowFacts, RowIndex
from data.report import summary, write_report


@pytest.fixture
def index():
    with RowIndex() as index:
        yield index


def thumbnail(colour: str = "orange") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), colour).save(buffer, "jpeg")
    return buffer.getvalue()


def add(index: RowIndex, row: int, findings=(), **facts) -> None:
    """A row in which nothing is wrong but what is said."""
    usual = {
        "where": f"metadata.csv, row {row}", "picture": f"{row}.png", "split": "train",
        "content": bytes([row]), "caption": bytes([row]), "width": 640, "height": 512,
        "tokens": 9, "bytes_before": 2048,
    }  # fmt: skip
    index.add(row, RowFacts(**usual | facts), findings)


def fault(row: int, sentence: str = "has no caption; write one") -> Finding:
    return Finding(f"metadata.csv, row {row}", sentence, True, row)


def figures(index: RowIndex) -> dict[str, str]:
    return dict(re.split(r"  +", line) for line in summary(index).splitlines())


def page(index: RowIndex, tmp_path, name: str = "my-pictures") -> str:
    write_report(tmp_path / "report.html", name, index)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def bars(page: str, title: str) -> dict[str, int]:
    """What a histogram says of its bins that are not empty."""
    svg = re.search(rf'<svg [^>]*aria-label="{title}">.*?</svg>', page, re.S).group()
    found = re.findall(r"<title>(.*): ([\d,]+) \w+</title>", svg)
    return {name: int(count.replace(",", "")) for name, count in found if count != "0"}


def test_the_summary_is_of_rows_that_can_be_read_and_kept(index):
    add(index, 1, width=300, height=200, tokens=5, bytes_after=512)
    add(index, 2, width=512, height=768, tokens=12, caption=bytes([1]), bytes_after=512)
    add(index, 3, width=4000, height=3000, tokens=91, content=bytes([1]), split="test",
        bytes_after=1024)  # fmt: skip
    add(index, 4, [fault(4)], width=0, height=0, tokens=0, content=None, caption=None)
    add(index, 5, [fault(5)], tokens=0, caption=bytes([1]), bytes_after=9999)
    index.note(Finding("loose.png", "no row names this picture", False))
    assert figures(index) == {
        "rows": "5 (4 train, 1 held out)",
        "pictures": "4 can be read",
        "found": "2 faults, 1 warning",
        "picture sizes": "300 x 200 smallest, 512 x 768 median, 4000 x 3000 largest",
        "caption tokens": "12 median, 91 longest",
        "more than once": "1 caption, 1 picture",
        "bytes": "6.0 KiB -> 2.0 KiB (33%)",
    }


def test_the_figures_stand_below_each_other(index):
    add(index, 1)
    starts = {re.search(r"  +", line).end() for line in summary(index).splitlines()}
    assert len(starts) == 1


def test_captions_that_are_missing_are_not_the_same_caption(index):
    for row in (1, 2):
        add(index, row, [fault(row)], caption=b"of None")
    assert figures(index)["more than once"] == "0 captions, 0 pictures"


def test_what_was_not_looked_at_is_left_out(index, tmp_path):
    assert list(figures(index)) == ["rows", "pictures", "found", "more than once"]
    text = page(index, tmp_path)
    assert "<svg" not in text
    assert "<img" not in text
    assert "No faults" in text
    assert "No warnings" in text


def test_nothing_from_the_data_becomes_markup(index, tmp_path):
    evil = '"><script>alert(1)</script>'
    add(index, 1, where=evil, picture=evil, thumbnail=thumbnail())
    add(index, 2, [Finding(evil, f"the caption {evil} is odd", False, 2)], picture=evil,
        thumbnail=thumbnail())  # fmt: skip
    text = page(index, tmp_path, name=evil)
    assert "<script" not in text
    assert unescape(text).count(evil) == 11


def test_the_page_asks_for_nothing_but_itself(index, tmp_path):
    add(index, 1, [Finding("row 1", "'https://a.b/c.png' is an address", True, 1)])
    add(index, 2, thumbnail=thumbnail())
    text = page(index, tmp_path)
    assert "https://a.b/c.png" in text
    assert {address[:5] for address in re.findall(r'(?:src|href)="([^"]*)"', text)} == {"data:"}
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_pictures_are_in_the_page_and_faulty_ones_only_in_the_list(index, tmp_path):
    add(index, 1, thumbnail=thumbnail("red"))
    add(index, 2, [fault(2)], thumbnail=thumbnail("blue"))
    sheet, listed = page(index, tmp_path).split('<div class="plots">')
    coded = r'src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"'
    [(shown, words)] = re.findall(coded, sheet)
    assert b64decode(shown) == thumbnail("red")
    assert words == "metadata.csv, row 1: 1.png"
    [(shown, words)] = re.findall(coded, listed)
    assert b64decode(shown) == thumbnail("blue")
    assert words == "2.png"


def test_the_contact_sheet_is_a_draw_over_the_rows_that_have_thumbnails(index, tmp_path):
    for row in range(1, 256):
        add(index, row, content=bytes([row * 77 % 256]), thumbnail=thumbnail() if row < 201
            else None)  # fmt: skip
    text = page(index, tmp_path)
    shown = [int(row) for row in re.findall(r'alt="metadata.csv, row (\d+)', text)]
    assert len(shown) == 60
    assert min(shown) <= 20
    assert 180 <= max(shown) <= 200
    assert "60 of 255 rows" in text


def test_faults_come_before_warnings_each_in_the_order_found(index, tmp_path):
    index.note(Finding("a", "first warning", False))
    index.note(Finding("b", "first fault", True))
    index.note(Finding("c", "second warning", False))
    index.note(Finding("d", "second fault", True))
    text = page(index, tmp_path)
    said = re.findall(r"(?:first|second) (?:fault|warning)", text)
    assert said == ["first fault", "second fault", "first warning", "second warning"]
    assert text.index("<h2>2 faults</h2>") < text.index("<h2>2 warnings</h2>")


def test_beyond_a_thousand_findings_are_counted(index, tmp_path):
    for row in range(1, 2502):
        index.note(Finding(f"row {row}", "is odd", False))
    text = page(index, tmp_path)
    assert text.count("<li>") == 1000
    assert "row 1000<" in text
    assert "<h2>2,501 warnings</h2>" in text
    assert "and 1,501 more" in text


def test_the_histograms_count_every_row_that_has_the_value(index, tmp_path):
    add(index, 1, width=512, height=512, tokens=2)
    add(index, 2, width=700, height=512, tokens=77)
    add(index, 3, width=512, height=9000, tokens=5000)
    add(index, 4, width=10, height=10, tokens=78)
    add(index, 5, [fault(5)], width=0, height=0, tokens=0)
    text = page(index, tmp_path)
    assert bars(text, "caption tokens") == {"below 4": 1, "76 to below 78": 1, "78 and more": 2}
    assert bars(text, "shorter side, pixels") == {"below 76": 1, "512 to below 609": 3}
    assert bars(text, "aspect ratio, width : height") == {
        "below 0.27": 1, "0.92 to below 1.09": 2, "1.3 to below 1.54": 1,
    }  # fmt: skip


def test_file_names_that_are_no_text_do_not_stop_the_report(index, tmp_path):
    assert r"photos\xff" in page(index, tmp_path, name="photos\udcff")


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(index, tmp_path):
    with pytest.raises(UserError, match=r"report.html cannot be written: No such file"):
        write_report(tmp_path / "missing" / "report.html", "my-pictures", index)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_report(tmp_path / "report.html", "my-pictures", index)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_replaces_the_one_before(index, tmp_path):
    page(index, tmp_path, name="old")
    assert "old" not in page(index, tmp_path, name="new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

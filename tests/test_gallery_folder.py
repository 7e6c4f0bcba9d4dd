"""The owner's pictures in a folder: kept, found and deleted; nothing else in it is touched."""

import io
import json
import os
import tracemalloc
from argparse import Namespace
from pathlib import Path

import pytest
from fakes import FakeGenerator
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_image_store import picture as plain
from test_votes import no_file_larger_than

import app
from core.errors import UserError
from sampling.image import Picture
from sampling.request import Request
from webapp import gallery_folder as module
from webapp.gallery_folder import NAME, Gallery
from webapp.job import NotSaved
from webapp.ui.sequential_draws import SequentialDraws
from webapp.worker import Worker

FOREIGN = "20260101-000000-000000-foreign-seed-1.png"  # called as ours are


def drawn(prompt: str, seed: int = 1, count: int = 1) -> list[Picture]:
    return list(FakeGenerator().pictures([Request(prompt, seed=seed, num_images=count)],
                                         lambda *_: False))  # fmt: skip


@pytest.fixture
def gallery(tmp_path) -> Gallery:
    return Gallery(str(tmp_path / "kept"))


def keep(gallery: Gallery, prompt: str, count: int = 1) -> None:
    for each in drawn(prompt, count=count):
        gallery.keep(each)


def test_the_longest_name_of_a_picture_can_be_kept(gallery, tmp_path):
    prompt = 60 * "\N{MATHEMATICAL SCRIPT CAPITAL A}"  # of four bytes
    request = Request(prompt, seed=2**32 - 1, variation_seed=2**32 - 1, variation_strength=0.5)
    gallery.keep(next(FakeGenerator().pictures([request], lambda *_: False)))
    assert len(names(tmp_path)) == 1


def folder(tmp_path) -> Path:
    return tmp_path / "kept"


def names(tmp_path) -> list[str]:
    return sorted(each.name for each in folder(tmp_path).iterdir())


def prompts(page) -> list[str]:
    return [entry.request.prompt for entry in page.entries]


def png_of(prompt: str, /, **settings) -> bytes:
    """The file of a picture of ours, of one pixel."""
    (picture,) = drawn(prompt)
    chunks, file = PngInfo(), io.BytesIO()
    chunks.add_text("sd-pokemon", json.dumps(picture.settings | settings))
    Image.new("RGB", (1, 1)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def test_pictures_are_kept_with_their_settings_under_names_that_sort_by_time(gallery, tmp_path):
    for prompt in ("zebra", "ant", "mole"):
        keep(gallery, prompt)
    assert [name.split("-")[3] for name in names(tmp_path)] == ["zebra", "ant", "mole"]
    assert prompts(gallery.page()) == ["mole", "ant", "zebra"]
    with Image.open(folder(tmp_path) / names(tmp_path)[0]) as png:
        assert png.text["parameters"].startswith("zebra\nSteps: 20")


def test_the_longest_name_is_one_that_a_disk_takes_and_that_is_found_again(gallery):
    keep(gallery, "\N{MATHEMATICAL SCRIPT SMALL A}" * 60)
    keep(gallery, "日本の山 (with fog)")
    assert len(gallery.page().entries) == 2


def test_pages_follow_each_other_and_one_beyond_the_last_is_the_last(gallery, monkeypatch):
    monkeypatch.setattr(module, "MAX_GALLERY_PAGE", 2)
    for number in range(5):
        keep(gallery, f"p{number}")
    pages = [gallery.page(number) for number in range(4)]
    assert [prompts(page) for page in pages] == [["p4", "p3"], ["p2", "p1"], ["p0"], ["p0"]]
    assert [page.has_older for page in pages] == [True, True, False, False]
    assert [page.number for page in pages] == [0, 1, 2, 2]


def test_words_are_searched_in_the_whole_prompt_whatever_their_case(gallery, monkeypatch):
    monkeypatch.setattr(module, "MAX_GALLERY_PAGE", 2)
    for prompt in ("a Red fox", "a red car", "a blue fox", "x" * 100 + " red", "red fox again"):
        keep(gallery, prompt)
    assert prompts(gallery.page(search="RED")) == ["red fox again", "x" * 100 + " red"]
    assert prompts(gallery.page(1, search="red")) == ["a red car", "a Red fox"]
    assert prompts(gallery.page(search="fox  red")) == ["red fox again", "a Red fox"]
    assert prompts(gallery.page(search="horse")) == []


def write_hostile(folder: Path, outside: Path) -> None:
    """Files and more that are called as ours are, and are none."""
    ours = png_of("a thief")
    outside.write_bytes(ours)
    whole = io.BytesIO()
    drawn("truncated")[0].save(whole)
    plain = io.BytesIO()
    Image.new("RGB", (4, 4)).save(plain, "PNG")
    large = io.BytesIO()
    chunks = PngInfo()
    chunks.add_text("sd-pokemon", json.dumps(drawn("large")[0].settings))
    Image.new("1", (20_000, 20_000)).save(large, "PNG", pnginfo=chunks)
    contents = {
        "text": b"no picture", "empty": b"", "plain": plain.getvalue(), "large": large.getvalue(),
        "truncated": whole.getvalue()[:-40], "head": ours[:40],
        "settings": png_of("a", steps=999), "kinds": png_of("a", prompt=["a"]),
        "flood": ours[:8] + ours[8:33] + b"\xff\xff\xff\xfftEXt" + b"a" * 100,
    }  # fmt: skip
    for name, content in contents.items():
        (folder / FOREIGN.replace("foreign", name)).write_bytes(content)
    (folder / FOREIGN.replace("foreign", "link")).symlink_to(outside)
    (folder / FOREIGN.replace("foreign", "folder")).mkdir()
    with (folder / FOREIGN.replace("foreign", "huge")).open("wb") as file:
        file.write(ours)
        file.truncate(2**40)  # sparse
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / FOREIGN.replace("foreign", "pipe"))
    (folder / "mine.png").write_bytes(ours)  # called otherwise
    (folder / "notes.txt").write_text("mine")


def test_what_is_no_picture_of_ours_is_passed_over_searched_or_not(gallery, tmp_path):
    keep(gallery, "a cat")
    write_hostile(folder(tmp_path), tmp_path / "outside.png")
    tracemalloc.start()
    assert prompts(gallery.page()) == ["a cat"]
    assert prompts(gallery.page(search="a")) == ["a cat"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 32 * 2**20


def test_only_pictures_of_ours_are_read_or_deleted(gallery, tmp_path):
    keep(gallery, "a cat")
    (ours,) = names(tmp_path)
    outside = tmp_path / FOREIGN
    write_hostile(folder(tmp_path), tmp_path / "outside.png")
    outside.write_bytes(png_of("a thief"))
    before = names(tmp_path)
    # Ours, if damaged or out of bounds: whoever knows their names may delete them.
    damaged = {FOREIGN.replace("foreign", n) for n in ("large", "truncated", "settings", "kinds")}
    tried = sorted({*before} - {ours} - damaged)
    for name in [*tried, f"../{FOREIGN}", str(outside), "", ".", "..", "a\0b", f"{ours}/../{ours}"]:
        for act in (gallery.read, gallery.delete):
            with pytest.raises(UserError, match="no such picture"):
                act(name)
    assert names(tmp_path) == before and outside.exists()
    gallery.delete(ours)
    assert names(tmp_path) == [name for name in before if name != ours]
    with pytest.raises(UserError, match="no such picture"):
        gallery.delete(ours)


def test_a_full_disk_is_one_sentence_and_the_drawing_goes_on(gallery, tmp_path):
    worker = Worker(FakeGenerator(), keep=gallery.keep)
    with no_file_larger_than(50):
        *_, first, second = list(worker.submit([Request("a cat")]))
    assert isinstance(first, Picture) and isinstance(second, NotSaved)
    assert second.sentence.startswith("The picture is not in the gallery (File too large).")
    assert str(tmp_path) not in second.sentence and names(tmp_path) == []
    assert isinstance(list(worker.submit([Request("a cat")]))[-1], Picture)
    assert len(names(tmp_path)) == 1


def test_every_picture_that_is_shown_is_kept_and_none_that_is_withheld(gallery, tmp_path):
    generator = FakeGenerator()
    worker = Worker(generator, keep=gallery.keep)
    list(worker.submit([Request("a cat", num_images=3)]))
    list(worker.submit([Request("of its base")], generator=FakeGenerator()))
    assert len(names(tmp_path)) == 4
    generator.problem = "flagged"
    list(worker.submit([Request("withheld")]))
    list(worker.submit([Request("a blind pair")], kept=False))
    assert len(names(tmp_path)) == 4


def test_a_series_that_is_not_kept_says_so_to_the_worker(gallery, tmp_path):
    class Visitor:
        client, headers, session_hash = None, {}, "a"

    worker = Worker(FakeGenerator(), keep=gallery.keep)
    for kept, count in ((False, 0), (True, 1)):
        list(SequentialDraws(worker, Visitor, kept).draw([Request("a cat")], worker.generator))
        assert len(names(tmp_path)) == count


def test_a_gallery_of_ten_thousand_is_listed_without_opening_more_than_one_page(
    gallery, tmp_path, monkeypatch
):
    content, opened = png_of("a cat"), []
    first = folder(tmp_path) / "20260101-000000-000000-a-cat-seed-1.png"
    first.write_bytes(content)
    for number in range(1, 3000):
        os.link(first, folder(tmp_path) / f"20260101-000000-{number:06}-a-cat-seed-1.png")
    read = module.read_bytes
    monkeypatch.setattr(module, "read_bytes", lambda p, most: opened.append(p) or read(p, most))
    monkeypatch.setattr(module, "opened", None)  # what a search would use
    page = gallery.page()
    assert page.total == 3000 and len(page.entries) == len(opened) == 24
    assert gallery.page(10**9).number == 124


def test_a_search_looks_at_no_more_than_so_many(gallery, monkeypatch):
    for prompt in ("old fox", "cat", "fox"):
        keep(gallery, prompt)
    monkeypatch.setattr(module, "MAX_GALLERY_SEARCHED", 2)
    assert prompts(gallery.page(search="fox")) == ["fox"]


def test_a_folder_that_cannot_be_one_is_a_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "within", "a\0b", tmp_path / ("a" * 300)):
        with pytest.raises(UserError, match="Choose another folder"):
            Gallery(str(path))


def test_a_folder_that_goes_meanwhile_is_a_sentence(gallery, tmp_path):
    folder(tmp_path).rmdir()
    with pytest.raises(UserError, match="The gallery cannot be read"):
        gallery.page()
    with pytest.raises(UserError, match="The picture is not in the gallery"):
        gallery.keep(plain(1))


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(tmp_path):
    folder(tmp_path).mkdir()
    half = folder(tmp_path) / f".{FOREIGN}.{2**22 - 1}"
    half.write_bytes(b"half")
    Gallery(str(folder(tmp_path)))
    assert not half.exists()


def options(**given) -> Namespace:
    usual = {"gallery": "kept", "public": False, "share": False, "allow_host": []}
    return Namespace(**usual | given)


@pytest.mark.parametrize("given", [{"public": True}, {"public": True, "share": True},
                                   {"allow_host": ["draw.example.org"]}])  # fmt: skip
def test_a_gallery_is_never_shown_to_others_without_a_password(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="who could delete them"):
        app.gallery_of(options(**given), None)
    assert not (tmp_path / "kept").exists()


def test_a_gallery_opens_for_its_owner_and_behind_a_password(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app.gallery_of(options(gallery=None, public=True), None) is None
    assert app.gallery_of(options(), None)
    password = app.password_of(app.parse_args(["--share"]))
    assert app.gallery_of(options(share=True), password)


def test_names_that_are_given_match_those_that_are_looked_for(gallery, tmp_path):
    keep(gallery, "a (red) fox, 50%: “so”")
    assert all(NAME.fullmatch(name) for name in names(tmp_path))

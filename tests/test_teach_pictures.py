"""Pictures to learn from, in the page: dropped, checked, mended, captioned and made ready."""

import io
import json
import re
from html import unescape

import pytest
from picture_sets import SET, AtOnce, Browser, browser, zip_of
from PIL import Image
from samples import file_of, noise

from core.errors import UserError
from webapp.runs.folder import RunsFolder, Teaching
from webapp.runs.pictures import PictureSets


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def rows_of(here: Browser) -> list[dict]:
    """What the data set that is ready holds."""
    lines = [
        line for path in here.set.ready.rglob("metadata.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]  # fmt: skip
    return [json.loads(line) for line in lines]


def captions_of(here: Browser) -> list:
    return sorted(row["text"] for row in rows_of(here))


def change(here: Browser, name: str, do: str, **values):
    return here.post("pictures/change", set=SET, name=name, do=do, **values)


def test_what_was_dropped_with_captions_is_ready_with_one_press(tmp_path):
    here = browser(tmp_path, 3)
    assert "Use these 3 pictures" in here.settled()
    assert here.post("pictures/ready", set=SET).status_code == 200
    assert f'data-get="settings?set={SET}"' in here.settled()
    assert captions_of(here) == [f"a thing number {number}" for number in range(3)]


def test_a_set_begins_with_a_place_to_drop_on(tmp_path):
    here = Browser(tmp_path)
    assert 'data-first="pictures/new"' in here.get("pictures").text
    assert "data-drop" in here.post("pictures/new", name=SET).text
    assert SET in here.get("pictures").text


def test_every_fault_stands_on_its_picture_beside_its_mend(tmp_path):
    here = browser(tmp_path, 2)
    here.send_picture("uncaptioned.png", 5)
    here.send("broken.png", b"no picture")
    here.send("broken.txt", b"a broken one")
    here.settled()
    cards = here.get("pictures", set=SET, show="look").text.split("<li")[1:]
    found = {re.search(r"(\w+)\.png", card)[1]: text_of(card) for card in cards}
    assert set(found) == {"uncaptioned", "broken"}
    assert "It has no caption: write one." in found["uncaptioned"]
    assert "cannot be read as a picture" in found["broken"] and "Leave out" in found["broken"]
    refused = here.post("pictures/ready", set=SET)
    assert refused.status_code == 400 and "and 1 more cannot be learned" in text_of(refused.text)


def test_faulty_pictures_come_first(tmp_path):
    here = browser(tmp_path, 2)
    here.send_picture("z.png", 5)
    names = re.findall(r"<span>(\w+)\.png", here.settled())
    assert names == ["z", "0", "1"]


def test_a_caption_is_saved_as_soon_as_it_is_written(tmp_path):
    here = browser(tmp_path)
    here.send_picture("a.png")
    here.settled()
    card = change(here, "a.png", "caption", caption="a red creature")
    assert card.status_code == 200 and "It has no caption" not in card.text
    here.post("pictures/ready", set=SET)
    here.settled()
    assert captions_of(here) == ["a red creature"]
    assert not (here.set.originals / "a.txt").exists()


def test_lines_of_a_caption_are_captions_of_their_own(tmp_path):
    here = browser(tmp_path, 1)
    change(here, "0.png", "caption", caption="a cat\r\na red cat\n")
    here.post("pictures/ready", set=SET)
    here.settled()
    assert rows_of(here)[0]["text"] == ["a cat", "a red cat"]


def test_a_caption_that_cannot_be_learned_is_named_when_the_set_is_made_ready(tmp_path):
    here = browser(tmp_path, 2)
    here.settled()
    change(here, "1.png", "caption", caption="12")
    here.post("pictures/ready", set=SET)
    text = here.settled()
    assert "is a number; put it in words" in text_of(text) and not here.set.ready.exists()
    change(here, "1.png", "caption", caption="a twelve")
    assert "Use these 2 pictures" in here.settled()


def test_the_trigger_word_stands_before_all_captions(tmp_path):
    here = browser(tmp_path, 1)
    here.send_picture("uncaptioned.png", 5)
    assert here.post("pictures/trigger", set=SET, trigger=" sks ").status_code == 200
    here.settled()
    here.post("pictures/ready", set=SET)
    here.settled()
    assert captions_of(here) == ["sks", "sks, a thing number 0"]


def test_captions_come_from_a_table(tmp_path):
    here = browser(tmp_path)
    for name in ("a.png", "b.png"):
        here.send_picture(f"photos/{name}", ord(name[0]))
    table = 'file_name,text\na.png,"a red, round thing"\nb,a blue thing\n'
    assert here.send("photos/metadata.csv", table.encode()).status_code == 204
    here.settled()
    here.post("pictures/ready", set=SET)
    here.settled()
    assert captions_of(here) == ["a blue thing", "a red, round thing"]


def test_a_table_never_replaces_what_was_written(tmp_path):
    here = browser(tmp_path)
    here.send_picture("a.png")
    change(here, "a.png", "caption", caption="written by hand")
    here.send("metadata.csv", b"file_name,text\na.png,from a table\n")
    assert "written by hand" in here.settled()


@pytest.mark.parametrize("suffix", [".txt", ".caption", ".json"])
def test_captions_come_from_files_beside_the_pictures(suffix, tmp_path):
    here = browser(tmp_path)
    here.send_picture("a.png")
    caption = b'{"caption": "a red thing"}' if suffix == ".json" else b"a red\n thing "
    here.send(f"a{suffix}", caption)
    assert "a red thing</textarea>" in here.settled()


def test_the_same_picture_and_one_like_it_stand_side_by_side(tmp_path):
    here = browser(tmp_path, 1)
    here.send_picture("copy.png", 0, "a copy")
    here.send("like.jpg", file_of(noise(0).resize((400, 340)), "jpeg", quality=95))
    here.send("like.txt", b"like it")
    text = here.settled()
    assert "The same file as 0.png" in text_of(text) and "Looks like 0.png" in text_of(text)
    here.post("pictures/keep", set=SET, name="copy.png", other="0.png")
    text = text_of(here.settled())
    assert "The same file" not in text and "Looks like" not in text
    assert here.set.draft.of("0.png").left_out


def test_of_three_equal_pictures_two_still_are(tmp_path):
    here = browser(tmp_path)
    for name in ("a.png", "b.png", "c.png"):
        here.send_picture(name, 0, "a thing")
    here.settled()
    change(here, "a.png", "leave")
    assert "The same file as b.png" in text_of(here.get("pictures", set=SET).text)


def test_a_picture_is_turned_upright_and_its_original_stays(tmp_path):
    here = browser(tmp_path, 1)
    here.settled()
    original = (here.set.originals / "0.png").read_bytes()
    assert change(here, "0.png", "turn").status_code == 200
    here.post("pictures/ready", set=SET)
    here.settled()
    assert (here.set.originals / "0.png").read_bytes() == original
    with Image.open(here.set.ready / rows_of(here)[0]["file_name"]) as turned:
        upright = noise(0).transpose(Image.Transpose.ROTATE_270)
        assert turned.size == (34, 40) and turned.tobytes() == upright.tobytes()
    for _ in range(3):
        change(here, "0.png", "turn")
    assert here.set.draft.of("0.png").turn == 0


def test_what_is_left_out_is_not_learned_and_can_be_taken_back(tmp_path):
    here = browser(tmp_path, 3)
    here.settled()
    assert "Take back" in change(here, "0.png", "leave").text
    here.post("pictures/ready", set=SET)
    here.settled()
    assert len(rows_of(here)) == 2
    change(here, "0.png", "take")
    assert "Use these 3 pictures" in here.settled()


def test_all_faulty_ones_are_left_out_at_once(tmp_path):
    here = browser(tmp_path, 1)
    here.send("broken.png", b"no picture")
    here.send_picture("uncaptioned.png", 5)
    here.settled()
    assert "Use these 1 picture" in here.post("pictures/mend", set=SET).text


def test_a_zip_is_unpacked_by_the_command(tmp_path):
    here = browser(tmp_path)
    files = {f"top/{i}.png": file_of(noise(i)) for i in range(3)}
    files |= {"top/0.txt": b"the first one", "top/broken.png": b"no picture"}
    assert here.send("photos.zip", zip_of(files), slice_bytes=1000).status_code == 204
    text = text_of(here.settled())
    assert "photos.zip: 4 pictures" in text and "3 cannot be learned from yet" in text
    assert "the first one" in text and not [*here.set.incoming.iterdir()]


def test_a_path_on_this_machine_is_read_and_left_as_it_is(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise(0).save(photos / "a.png")
    (photos / "a.txt").write_text("a red thing")
    before = {path: path.stat().st_mtime_ns for path in [photos, *photos.iterdir()]}
    here = browser(tmp_path / "runs")
    assert here.post("pictures/add", set=SET, path=str(photos)).status_code == 200
    assert "a red thing</textarea>" in here.settled()
    assert {path: path.stat().st_mtime_ns for path in [photos, *photos.iterdir()]} == before


@pytest.mark.parametrize("path", ["photos", "", "../photos", "/there/is/none"])
def test_a_path_that_cannot_be_read_is_refused(path, tmp_path):
    here = browser(tmp_path)
    answer = here.post("pictures/add", set=SET, path=path)
    assert answer.status_code == 400 and 'role="alert"' in answer.text
    assert not here.set.draft.sources


def test_unchanged_pictures_are_not_written_again(tmp_path):
    here = browser(tmp_path, 2)
    here.settled()
    here.post("pictures/ready", set=SET)
    here.settled()
    started = len(here.commands.started)
    here.post("pictures/ready", set=SET)
    here.settled()
    assert len(here.commands.started) == started


def test_from_twenty_pictures_on_some_are_held_out(tmp_path):
    here = browser(tmp_path, 20)
    here.settled()
    here.post("pictures/ready", set=SET)
    here.settled()
    assert "0.1" in here.commands.started[-1]
    here.post("pictures/held_out", set=SET, held_out="0")
    here.post("pictures/ready", set=SET)
    here.settled()
    assert not (here.set.ready / "test").exists() and len(rows_of(here)) == 20


def test_thumbnails_are_small_jpegs_turned_as_the_picture_is(tmp_path):
    here = browser(tmp_path)
    here.send_picture("a b/\u00fc&?.png", 0, size=(900, 600))
    name = here.settled().split("thumbnail?")[1].split('"')[0]
    answer = here.client.get(f"/teach/pictures/thumbnail?{unescape(name)}")
    assert answer.headers["content-type"] == "image/jpeg"
    turned = here.get("pictures/thumbnail", set=SET, name="a b/\u00fc&_.png", turn=90)
    assert Image.open(io.BytesIO(answer.content)).size == (320, 213)
    assert Image.open(io.BytesIO(turned.content)).size == (213, 320)


def test_a_set_is_deleted_with_all_that_is_in_it(tmp_path):
    here = browser(tmp_path, 1)
    assert "data-sure" in here.settled()
    assert here.post("pictures/delete", set=SET).status_code == 200
    assert not [*(tmp_path / "pictures").iterdir()]


def test_a_set_that_a_run_learns_from_is_not_deleted(tmp_path):
    here = browser(tmp_path, 1)
    RunsFolder(tmp_path).new_run(Teaching("mine", "", "style", "quick", SET, ()))
    answer = here.post("pictures/delete", set=SET)
    assert answer.status_code == 400 and "The run mine learns from these" in answer.text
    assert here.set.originals.exists()


def test_a_folder_that_the_page_did_not_make_is_neither_shown_nor_deleted(tmp_path):
    (tmp_path / "pictures" / "mine").mkdir(parents=True)
    here = Browser(tmp_path)
    assert "mine" not in here.get("pictures").text
    assert here.post("pictures/delete", set="mine").status_code == 400
    with pytest.raises(UserError, match="already"):
        PictureSets(tmp_path / "pictures").new("mine")


def test_why_a_check_came_to_no_result_is_said_and_it_is_not_repeated_by_itself(tmp_path):
    here = browser(tmp_path, 1, commands=AtOnce(refuse="There is no room."))
    assert "There is no room." in here.settled()
    here.settled()
    assert len(here.commands.started) == 1
    here.commands.refuse = ""
    here.post("pictures/check", set=SET)
    assert "There is no room." not in here.settled()

"""The data set of the second look: each thing once, learned or held out."""

import json

from icons import stand_ins
from PIL import Image

from bundled import second_look


def test_every_thing_is_learned_or_held_out_with_its_picture_and_its_name(
    tmp_path, monkeypatch, capsys
):
    for name in ("icons", "icons-3d"):
        stand_ins().save(tmp_path / name)
    monkeypatch.setattr(second_look, "LEARNED", 2)
    monkeypatch.setattr(
        "sys.argv", ["", "--work", str(tmp_path), "--output", str(tmp_path / "out")]
    )
    second_look.main()
    things, seen = stand_ins().things, []
    for folder, count in (("train", 2), ("held-out", len(things) - 2)):
        place = tmp_path / "out" / folder
        rows = [json.loads(line) for line in (place / "metadata.jsonl").read_text().splitlines()]
        assert len(rows) == count
        for row in rows:
            number = int(row["file_name"].split(".")[0])
            seen.append(number)
            assert row["text"].endswith(things[number].names[0])
            with Image.open(place / row["file_name"]) as image:
                assert image.size == (128, 128) and image.getpixel((0, 0)) == (255, 255, 255)
                assert len(image.getcolors(128 * 128)) > 1
    assert sorted(seen) == list(range(len(things)))
    assert f"2 pictures to learn, {len(things) - 2} to compare with" in capsys.readouterr().out

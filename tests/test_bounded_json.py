import gc
import io
import json
import time
from contextlib import suppress
from itertools import chain, cycle, islice

import pytest

from core import bounded_json
from core.bounded_json import BrokenJSON, JSONFault, Scanner, check_bounds, loads, read


def scanned(text: str) -> list:
    """The values of a list, or name and value of an object; a fault stands for its value."""
    document, found = Scanner(io.StringIO(text)), []
    steps = document.elements() if document.peek() == "[" else document.names()
    for step in steps:
        try:
            value = document.value()
        except BrokenJSON:
            raise
        except JSONFault as fault:
            value = str(fault)
        found.append(value if step is None else (step, value))
    document.end()
    return found


DOCUMENTS = (
    "[]",
    " [ ] ",
    "{}",
    '[1, -2.5e3 , "a", null, true, {"b": [1, {"c": "\\u00e4\\"]"}]}, []]',
    '{"a": 1, "b" : {"c": [2]}, "\\"": "x"}\n',
    json.dumps([{"file_name": f"{i}.png", "text": "a red creature", "at": [i, i / 3]}
                for i in range(50)], indent=1),
)  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7, 64, 10_000])
@pytest.mark.parametrize("text", DOCUMENTS, ids=range(len(DOCUMENTS)))
def test_a_document_read_in_parts_is_the_one_read_whole(monkeypatch, text, chunk):
    monkeypatch.setattr(bounded_json, "CHUNK", chunk)
    whole = json.loads(text)
    assert scanned(text) == (list(whole.items()) if isinstance(whole, dict) else whole)


@pytest.mark.parametrize("chunk", [1, 3, 1_000])
@pytest.mark.parametrize(
    "text",
    ["[", "[1,", "[1,]", "[1 2]", '{"a"', '{"a":', '{"a": 1,}', "{a: 1}", "[1] 2", "[tru", '["abc',
     "[nul]", "['a']", "[1}", '{"a": 1]', '["\\x"]', "[1]\n[2]", "[-]", '["\\ud8"]', '["a\nb"]'],
)  # fmt: skip
def test_what_is_no_whole_document_says_so(monkeypatch, text, chunk):
    monkeypatch.setattr(bounded_json, "CHUNK", chunk)
    with pytest.raises(BrokenJSON, match=r"^is no whole JSON \(line \d: "):
        scanned(text)


@pytest.mark.parametrize("chunk", [1, 50])
@pytest.mark.parametrize("lines", ["1,\n" * 100, "\n" * 100, "\n1\n," * 50])
def test_the_line_of_a_break_is_that_of_the_file(monkeypatch, chunk, lines):
    monkeypatch.setattr(bounded_json, "CHUNK", chunk)
    with pytest.raises(BrokenJSON, match=r"\(line 101: Expecting value"):
        scanned(f"[{lines}x]")


def test_a_value_beyond_the_bounds_does_not_hide_the_next():
    many = "9" * 5_000
    document = f'[1, {many}, {{"a": -{many}}}, 0.{many}, {"[" * 101}{"]" * 101}, 2]'
    first, *faults, last = scanned(document)
    assert (first, last) == (1, 2)
    long = "holds a number of 5,000 digits; at most 300 are read"
    assert faults == [long, long, long, "is nested more than 100 deep"]


@pytest.mark.parametrize("number", ["7" * 300, "-" + "7" * 300, "-0." + "7" * 300, "7e-5", "0.1"])
def test_a_number_that_is_read_alone_is_read_beside_a_longer_one_too(number):
    check_bounds(number)
    alone, beside = loads(number), scanned(f"[{number}, {'7' * 301}]")
    assert beside == [alone, "holds a number of 301 digits; at most 300 are read"]
    assert alone == json.loads(number)


@pytest.mark.parametrize("number", ["7" * 301, "-" + "7" * 301, "0." + "7" * 301])
def test_a_number_of_one_digit_more_is_not_read_anywhere(number):
    with pytest.raises(JSONFault, match="holds a number of more than 300 digits"):
        check_bounds(number)
    with pytest.raises(JSONFault, match="holds a number of 301 digits; at most 300 are read"):
        loads(number)


def test_text_is_not_taken_for_numbers_or_brackets():
    text = {"digits": "9" * 5_000, "brackets": '[{"\\' * 500}
    assert loads(json.dumps(text)) == text
    check_bounds(json.dumps(text))
    assert scanned(json.dumps([text, 1])) == [text, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "is nested more than 100 deep"),
        ("[" * 101 + "]" * 101, "is nested more than 100 deep"),
        ('{"a": ' * 101 + "1" + "}" * 101, "is nested more than 100 deep"),
        ('[{"a": ' * 51 + "1" + "}]" * 51, "is nested more than 100 deep"),
        ("7" * 301, "holds a number of 301 digits; at most 300 are read"),
        ('{"a": ', "is no JSON: "),
        (b"\xff\xff{", "is no JSON: "),
        ("", "is no JSON: "),
    ],
    ids=range(8),
)
def test_a_text_beyond_the_bounds_is_a_fault(text, says):
    with pytest.raises(JSONFault, match=f"^{says}"):
        loads(text)


def test_a_text_within_the_bounds_is_as_json_reads_it(tmp_path):
    text = "[" * 100 + "7" * 300 + ", NaN, 1e999999" + "]" * 100
    assert str(loads(text)) == str(json.loads(text))
    (tmp_path / "a.json").write_text('{"a": "ä"}', "utf-16")
    assert read(tmp_path / "a.json") == {"a": "ä"}


def test_a_text_that_is_too_long_is_not_parsed(tmp_path):
    with pytest.raises(JSONFault, match="has more than 10 characters"):
        loads("[" * 11, max_characters=10)
    (tmp_path / "a.json").write_text("[" * 2_000)
    with pytest.raises(OSError) as refused:
        read(tmp_path / "a.json", max_bytes=1_024)
    assert refused.value.strerror == "has more than 1 KiB"


class Endless(io.TextIOBase):
    """A file in which a value begins that never ends."""

    def __init__(self, begin: str, more: str):
        self.text, self.given = chain(begin, cycle(more)), 0

    def read(self, count: int = -1) -> str:
        self.given += count
        return "".join(islice(self.text, count))


@pytest.mark.parametrize(("begin", "more"), [('["', "a"), ("[[1", ",1"), ("[", "9"), ("[-", "9")])
def test_a_value_without_end_is_given_up(monkeypatch, begin, more):
    monkeypatch.setattr(bounded_json, "VALUE_CHARACTERS", 2**16)
    monkeypatch.setattr(bounded_json, "CHUNK", 2**10)
    file = Endless(begin, more)
    with pytest.raises(BrokenJSON, match="one value has more than 65,536 characters"):
        scanned_from(file)
    assert file.given < 2**19


def scanned_from(file) -> None:
    document = Scanner(file)
    for _ in document.elements():
        document.value()


def seconds(text: str) -> float:
    """Of the processor, to read a text."""
    start = time.process_time()
    for reads in (loads, check_bounds, scanned):
        with suppress(JSONFault):
            reads(text)
    return time.process_time() - start


@pytest.mark.parametrize(
    "part",
    ["9" * 299 + ",", "9" * 2_000 + ",", "[]," * 300, "[" * 50 + "]" * 50 + ",",
     '"' + "\\\\" * 500 + '",', '"' + "a" * 999, "[" * 1_000],
    ids=range(7),
)  # fmt: skip
def test_time_grows_with_the_length_and_no_faster(part):
    short, long = (f"[{part * (count // len(part))}1]" for count in (2**16, 2**20))
    gc.disable()  # it looks at all objects of the process again and again
    try:
        quick = min(seconds(short) for _ in range(3))
        assert seconds(long) < 96 * max(quick, 0.005)  # of 16 times the length; quadratic: 256
    finally:
        gc.enable()

import pytest

from evaluation.attribute_binding import first_colour, swapped, without_second


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("a red creature with blue wings", "a blue creature with red wings"),
        ("A Red car, black wheels", "A black car, Red wheels"),
        ("a red creature", None),
        ("a red creature with red wings", None),
        ("a red creature with blue wings and green ears", None),
        ("a redhead with blue eyes", None),
        ("a black and white photo", None),
        ("", None),
    ],
)
def test_two_different_colours_change_places(caption, other):
    assert swapped(caption) == other


def test_the_first_colour_is_that_of_the_body():
    assert first_colour("a Red creature with blue wings") == "red"
    assert first_colour("a creature") is None


@pytest.mark.parametrize(
    ("caption", "without"),
    [
        ("a red creature with blue wings", "a red creature"),
        ("a green creature with red wings and fangs", "a green creature with fangs"),
        ("a gray creature with a horn and red wings", "a gray creature with a horn"),
        ("A Red car, black wheels", "A Red car"),
        ("a red car in front of a blue house", "a red car"),
        ("a red ball and two blue cubes on a table", "a red ball on a table"),
        ("a red creature whose wings are blue", None),
    ],
)  # fmt: skip
def test_the_second_thing_is_left_out(caption, without):
    assert without_second(caption) == without

import pytest

from scoring.binding import first_colour, swapped


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

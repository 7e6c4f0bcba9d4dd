"""A drawing as the query of a GET, which a cache can keep: one seed, one picture."""

from typing import NamedTuple


class Setting(NamedTuple):
    """A setting of a drawing that a query may have."""

    name: str
    is_text: bool = False
    is_required: bool = False


SETTINGS = (
    Setting("prompt", is_text=True, is_required=True),
    Setting("seed", is_required=True),  # without it nothing could be kept
    Setting("negative_prompt", is_text=True),
    Setting("steps"),
    Setting("width"),
    Setting("height"),
)
# What escapeJavaScript makes of an apostrophe, JSON does not know.
ESCAPED = "$util.escapeJavaScript($input.params('%s')).replaceAll(\"\\\\'\", \"'\")"


def template() -> str:
    """API Gateway's template (VTL) that makes the JSON of the app's own request from the query.

    Numbers are escaped as text is, so that they cannot bring keys of their own; what is no number
    the app refuses.
    """
    return "{" + "\n".join(_member(setting) for setting in SETTINGS) + "}"


def _member(setting: Setting) -> str:
    value = ESCAPED % setting.name
    comma = "" if setting is SETTINGS[0] else ","
    member = f'{comma}"{setting.name}": ' + (f'"{value}"' if setting.is_text else value)
    if setting.is_required:
        return member
    return f"#if($input.params('{setting.name}') != \"\"){member}#end"

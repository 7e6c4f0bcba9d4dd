"""The page's Gradio theme: warm paper by day, ink by night, one accent colour, system fonts."""

from pathlib import Path

from gradio.themes import Base, Font, colors, sizes

HERE = Path(__file__).parent
CSS = [HERE / "page.css", HERE / "teach" / "teach.css"]


def theme() -> Base:
    """Only system fonts, so that the page asks no other host for anything."""
    return Base(
        primary_hue=colors.orange,
        secondary_hue=colors.stone,
        neutral_hue=colors.stone,
        radius_size=sizes.radius_lg,
        text_size=sizes.text_md,
        font=(Font("ui-sans-serif"), Font("system-ui"), Font("sans-serif")),
        font_mono=(Font("ui-monospace"), Font("monospace")),
    ).set(
        body_background_fill="#faf8f4",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_400",
        block_title_text_weight="500",
        block_shadow="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_primary_border_color="transparent",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        input_border_color_focus="*primary_400",
        slider_color="*primary_500",
    )

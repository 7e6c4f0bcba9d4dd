"""The things of the base model, as pictures with a name: icons of an openly licensed emoji set.

They come from two npm packages, named in NOTICE, which are needed to repeat the recipe alone:

    npm install --ignore-scripts @iconify-json/fluent-emoji-flat emojibase-data

`build` renders the icons of `bundled/things.txt` once; `Icons.load` opens what it wrote.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from bundled.canvas import PALETTE
from bundled.pixels import lab, rgb
from core.bounded_json import read
from core.errors import UserError

SIDE = 128  # pixels of an icon; its longer side fills them
RENDERED = 256
THINGS = Path(__file__).with_name("things.txt")
PEOPLE = 1  # group of emojibase: skin takes no colour
PACKAGES = ("@iconify-json/fluent-emoji-flat", "emojibase-data")
SECOND = Path("node_modules", "@lobehub", "fluent-emoji-3d", "assets")

CHROMATIC = 18  # chroma in L*a*b* from which a pixel has a hue
HUE_WIDTH, LIGHTNESS_WIDTH = 40, 24  # degrees, L*: pixels so near to the commonest are of its part
ENOUGH = 0.35  # share of an icon that its main part must fill to carry a colour
KEPT = 0.8  # share of the differences in a part that stay when its colour is changed
NEAR, CLEARLY = 45, 10  # distance in L*a*b* of a named colour, and how much farther the next one is


@dataclass(frozen=True)
class Thing:
    """What can be drawn: its names, the first one most used, and the colours that it can take."""

    names: tuple[str, ...]
    colour: str | None  # its own, where that has one clear name
    paintable: bool  # whether its colour can be changed
    mean: tuple[float, float, float]  # L*a*b* of its main part


@dataclass(frozen=True)
class Icons:
    """Things and their pictures."""

    things: tuple[Thing, ...]
    pictures: np.ndarray  # uint8 N,SIDE,SIDE,4
    parts: np.ndarray  # bool N,SIDE,SIDE: the main part, which takes another colour

    @classmethod
    @lru_cache(maxsize=2)
    def load(cls, folder: Path) -> Icons:
        things = read(folder / "things.json")
        for thing in things:
            thing["names"], thing["mean"] = tuple(thing["names"]), tuple(thing["mean"])
        arrays = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("pictures", "parts"))
        return cls(tuple(Thing(**thing) for thing in things), *arrays)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "pictures.npy", self.pictures)
        np.save(folder / "parts.npy", self.parts)
        things = json.dumps([asdict(thing) for thing in self.things], indent=1)
        (folder / "things.json").write_text(things + "\n", encoding="utf-8")

    def picture(self, index: int, colour: str | None = None) -> Image.Image:
        """RGBA, SIDE x SIDE; the main part in `colour` where that is named."""
        pixels = np.array(self.pictures[index])
        if colour is not None:
            part = self.parts[index]
            pixels[part, :3] = painted(pixels[part, :3], self.things[index].mean, PALETTE[colour])
        return Image.fromarray(pixels, "RGBA")


def painted(pixels: np.ndarray, mean: tuple, colour: tuple) -> np.ndarray:
    """The pixels, uint8 N,3, moved so that their mean becomes `colour`: shades stay shades."""
    target = lab(np.array([colour], dtype=float))[0]
    return rgb(target + KEPT * (lab(pixels.astype(float)) - mean))


def main_part(pixels: np.ndarray) -> tuple[np.ndarray, tuple, float]:
    """Of an icon, uint8 H,W,4: the mask of its main part, its mean colour in L*a*b*, its share."""
    shown = pixels[..., 3] > 127
    values = lab(pixels[shown][:, :3].astype(float))
    chroma = np.hypot(values[:, 1], values[:, 2])
    hue = np.degrees(np.arctan2(values[:, 2], values[:, 1])) % 360
    coloured = chroma >= CHROMATIC
    if coloured.mean() >= ENOUGH:
        centre = _commonest(hue[coloured], 360, HUE_WIDTH)
        apart = np.abs((hue - centre + 180) % 360 - 180)
        inside = coloured & (apart <= HUE_WIDTH)
    else:
        centre = _commonest(values[~coloured, 0], None, LIGHTNESS_WIDTH)
        inside = ~coloured & (np.abs(values[:, 0] - centre) <= LIGHTNESS_WIDTH)
    mask = np.zeros(shown.shape, bool)
    mask[shown] = inside
    return mask, tuple(float(part) for part in values[inside].mean(0)), float(inside.mean())


def _commonest(values: np.ndarray, around: int | None, width: float) -> float:
    """The place with most values within half a width; `around`: where the scale begins anew."""
    places = np.arange(0, around or 101, 2)
    distance = np.abs(values[None] - places[:, None])
    if around:
        distance = np.minimum(distance, around - distance)
    return float(places[(distance <= width / 2).sum(1).argmax()])


def named(mean: tuple) -> str | None:
    """The palette's name of a colour in L*a*b*, where one is clearly nearest."""
    names, known = list(PALETTE), lab(np.array(list(PALETTE.values()), dtype=float))
    distances = np.linalg.norm(known - mean, axis=1)
    first, second = distances.argsort()[:2]
    clear = distances[first] <= NEAR and distances[second] - distances[first] >= CLEARLY
    return names[first] if clear else None


def build(packages: Path, folder: Path) -> None:
    """Render the icons of `bundled/things.txt` into `folder`, once."""
    if (folder / "things.json").exists():
        return
    svgs = icon_sources(packages)
    things, pictures, parts = [], [], []
    for label, names in listed():
        if label not in svgs:
            raise UserError(f"{THINGS.name}: the packages have no icon for {label!r}. Delete it.")
        source, group = svgs[label]
        pixels = rendered(source)
        mask, mean, share = main_part(pixels)
        paintable = share >= ENOUGH and group != PEOPLE
        things.append(Thing(names, named(mean) if share >= 0.5 else None, paintable, mean))
        pictures.append(pixels)
        parts.append(mask)
    Icons(tuple(things), np.stack(pictures), np.stack(parts)).save(folder)


def build_second(packages: Path, first: Path, folder: Path) -> None:
    """The same things, in the same order, in the second look: pictures of 256 px with shades."""
    if (folder / "things.json").exists():
        return
    sources = {plain_code(path.stem): path for path in (packages / SECOND).glob("*.webp")}
    codes = {entry["label"]: plain_code(entry["hexcode"]) for entry in emoji_data(packages)}
    icons, things, pictures = Icons.load(first), [], []
    for (label, _), thing in zip(listed(), icons.things, strict=True):
        if codes[label] not in sources:
            raise UserError(f"{packages / SECOND} has no picture of {label!r}.")
        pixels = fitted(Image.open(sources[codes[label]]).convert("RGBA"))
        _, mean, share = main_part(pixels)
        colour = named(mean) if share >= 0.5 else None
        things.append(replace(thing, colour=colour, paintable=False, mean=mean))
        pictures.append(pixels)
    shown = np.stack(pictures)
    Icons(tuple(things), shown, np.zeros(shown.shape[:3], bool)).save(folder)


def listed() -> list[tuple[str, tuple[str, ...]]]:
    """Label and names of each thing, in the order of `bundled/things.txt`."""
    lines = THINGS.read_text(encoding="utf-8").splitlines()
    parts = [line.partition(": ") for line in lines if line and not line.startswith("#")]
    return [(label, tuple(names.split(", "))) for label, _, names in parts]


def icon_sources(packages: Path) -> dict[str, tuple[str, int]]:
    """The SVG of each icon and the group of its emoji, by label. Raises UserError where the
    packages are missing."""
    icons = packages / "node_modules" / PACKAGES[0]
    try:
        known = emoji_data(packages)
        bodies = read(icons / "icons.json")
        names = read(icons / "chars.json")
    except FileNotFoundError as error:
        raise UserError(
            f"The icons are not there ({error.filename}). In {packages} run: npm install "
            f"--ignore-scripts {' '.join(PACKAGES)}"
        ) from error
    named = {plain_code(code): name for code, name in names.items()}
    return {
        entry["label"]: (svg(bodies, named[plain_code(entry["hexcode"])]), entry.get("group"))
        for entry in known
        if named.get(plain_code(entry["hexcode"])) in bodies["icons"]
    }


def emoji_data(packages: Path) -> list[dict]:
    """What emojibase-data says of each emoji: label, code point, group."""
    return read(packages / "node_modules" / PACKAGES[1] / "en" / "data.json")


def plain_code(code: str) -> str:
    """A code point without the sign that asks for a coloured picture: sets differ in it."""
    return code.lower().replace("-fe0f", "")


def svg(bodies: dict, name: str) -> str:
    icon = bodies["icons"][name]
    width = icon.get("width", bodies.get("width", 16))
    height = icon.get("height", bodies.get("height", 16))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def rendered(source: str) -> np.ndarray:
    """An SVG as uint8 SIDE,SIDE,4: what is shown of it fills the square, centred."""
    try:
        import resvg_py
    except ImportError as error:
        raise UserError("Rendering icons needs resvg-py: pip install resvg-py") from error
    data = bytes(resvg_py.svg_to_bytes(svg_string=source, width=RENDERED, height=RENDERED))
    return fitted(Image.open(io.BytesIO(data)).convert("RGBA"))


def fitted(image: Image.Image) -> np.ndarray:
    """What is shown of an RGBA picture, as large as a square of SIDE allows, in its middle."""
    shown = image.crop(image.getchannel("A").getbbox())
    scale = SIDE / max(shown.size)
    size = tuple(max(1, round(side * scale)) for side in shown.size)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(
        shown.resize(size, Image.Resampling.LANCZOS),
        ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2),
    )
    return np.array(square)

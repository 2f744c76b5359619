"""Pictures without people: textures that a crowd counter mistakes for crowds, drawn from random numbers.

A counter that only ever saw crowds and streets counts whatever is fine and irregular: lawns, gravel, foliage, text.
`picture` draws such textures; mixed into a training run with zero heads they teach what a head is not
(``--data ... negatives``). They contain no third party's pictures and carry no licence.

========  ======================================================================================
kind      what it draws
========  ======================================================================================
noise     noise with a power spectrum 1/f^a, a from 0 (white) to 2.5 (clouds), gray or coloured
grating   one to three waves, sinusoidal or square: stripes, corrugated iron, woven cloth
checker   chequered and tiled floors, brick walls
leaves    overlapping leaves or blades of grass
gravel    overlapping shaded pebbles
specks    small discs and squares, far apart to dense: confetti, flowers, litter
page      lines of text
========  ======================================================================================

Every picture is then seen at an angle (perspective), lit unevenly, blurred and given sensor noise.
Everything follows from ``np.random.default_rng([seed, index])``.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Random = np.random.Generator
SIDE = 512  # pixels


def _palette(rng: Random, colours: int, spread: float) -> np.ndarray:
    """uint8 [colours, 3]: a random colour and its neighbours, ``spread`` (0 to 1) apart; a quarter is gray."""
    base = rng.uniform(20, 235, 3)
    if rng.random() < 0.25:
        base[:] = base.mean()
        shift = np.repeat(rng.normal(0, 90 * spread, (colours, 1)), 3, 1)
    else:
        shift = rng.normal(0, 90 * spread, (colours, 1)) + rng.normal(0, 60 * spread, (colours, 3))
    return np.clip(base + shift, 0, 255).astype(np.uint8)


def _colour(rng: Random, palette: np.ndarray) -> tuple[int, ...]:
    return tuple(int(c) for c in palette[rng.integers(len(palette))])


def _spectrum(rng: Random, side: int, exponent: float, channels: int) -> np.ndarray:
    """Noise [side, side, channels] of unit variance whose power falls like 1 / frequency^(2 exponent)."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.normal(size=(side, side, channels)), axes=(0, 1))
    values = np.fft.irfft2(white * (frequency**-exponent)[..., None], (side, side), axes=(0, 1))
    return (values - values.mean((0, 1))) / values.std((0, 1))


def _noise(rng: Random, side: int) -> Image.Image:
    gray = _spectrum(rng, side, rng.uniform(0, 2.5), 1)
    values = gray * rng.uniform(10, 60) + rng.uniform(60, 190)
    colour = _palette(rng, 1, 0)[0].astype(float)
    values = values * (colour / max(colour.mean(), 1))
    if rng.random() < 0.4:
        values = values + _spectrum(rng, side, rng.uniform(0, 2), 3) * rng.uniform(3, 25)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _grating(rng: Random, side: int) -> Image.Image:
    y, x = np.mgrid[:side, :side]
    total = np.zeros((side, side))
    for _ in range(rng.integers(1, 4)):
        angle, wave = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(80)))
        phase = 2 * np.pi * ((x * np.cos(angle) + y * np.sin(angle)) / wave + rng.random())
        curve = np.sin(phase)
        total += np.sign(curve) if rng.random() < 0.4 else curve
    share = ((total - total.min()) / (np.ptp(total) or 1))[..., None]
    one, two = _palette(rng, 1, 0)[0], _palette(rng, 1, 0)[0]
    return Image.fromarray((one * share + two * (1 - share)).astype(np.uint8))


def _checker(rng: Random, side: int) -> Image.Image:
    width = np.exp(rng.uniform(np.log(4), np.log(70)))
    height = width * rng.choice([1, 1, 0.5, 0.3, 2])
    y, x = np.mgrid[:side, :side]
    row = (y // height).astype(int)
    bricks = rng.random() < 0.4
    column = ((x + bricks * (row % 2) * width / 2) // width).astype(int)
    if bricks or rng.random() < 0.3:  # every tile has its own colour, with joints between them
        palette = _palette(rng, 16, rng.uniform(0.05, 0.5))
        pixels = palette[(row * 7919 + column * 104729) % 1009 % 16]
        joint = max(1.0, width * 0.06)
        joints = (y % height < joint) | ((x + bricks * (row % 2) * width / 2) % width < joint)
        pixels[joints] = _palette(rng, 1, 0)[0]
    else:
        pair = np.stack([_palette(rng, 1, 0)[0], _palette(rng, 1, 0)[0]])
        pixels = pair[(row + column) % 2]
    return Image.fromarray(pixels)


def _leaves(rng: Random, side: int) -> Image.Image:
    image = Image.new("RGB", (side, side), _colour(rng, _palette(rng, 1, 0)))
    draw = ImageDraw.Draw(image)
    base = np.array([rng.uniform(30, 120), rng.uniform(60, 160), rng.uniform(10, 70)])
    if rng.random() < 0.3:  # autumn, hay, carpets
        base = rng.uniform(20, 200, 3)
    palette = np.clip(base * rng.uniform(0.3, 1.7, (24, 1)) + rng.normal(0, 12, (24, 3)), 0, 255).astype(np.uint8)
    length = np.exp(rng.uniform(np.log(4), np.log(50)))
    breadth, upright = rng.uniform(0.08, 0.6), rng.uniform(0.1, 3)
    number = int(min(3 * side**2 / (length**2 * breadth), 9000))
    centres, sizes = rng.uniform(0, side, (number, 2)), length * rng.lognormal(0, 0.3, number)
    angles, colours = np.pi / 2 + rng.normal(0, upright, number), palette[rng.integers(0, 24, number)]
    for (x, y), size, angle, colour in zip(centres, sizes, angles, colours, strict=True):
        dx, dy = size / 2 * np.cos(angle), size / 2 * np.sin(angle)
        ends = [
            (x - dx, y - dy),
            (x - dy * breadth, y + dx * breadth),
            (x + dx, y + dy),
            (x + dy * breadth, y - dx * breadth),
        ]
        draw.polygon(ends, fill=tuple(colour.tolist()))
    return image


def _gravel(rng: Random, side: int) -> Image.Image:
    palette = _palette(rng, 24, rng.uniform(0.1, 0.6))
    image = Image.new("RGB", (side, side), _colour(rng, palette // 3))
    draw = ImageDraw.Draw(image)
    radius = np.exp(rng.uniform(np.log(1.5), np.log(20)))
    number = int(min(2.5 * side**2 / (np.pi * radius**2), 9000))
    centres, radii = rng.uniform(0, side, (number, 2)), radius * rng.lognormal(0, 0.4, number)
    flat, shade = rng.uniform(0.6, 1.6, number), rng.uniform(0.2, 0.7)
    for (x, y), r, f, colour in zip(centres, radii, flat, palette[rng.integers(0, 24, number)], strict=True):
        w, h = r * f, r / f
        draw.ellipse((x - w, y - h, x + w, y + h), fill=tuple((colour * shade).astype(int).tolist()))
        draw.ellipse((x - w, y - h, x + w * 0.6, y + h * 0.6), fill=tuple(colour.tolist()))
    return image


def _specks(rng: Random, side: int) -> Image.Image:
    image = (
        _noise(rng, side) if rng.random() < 0.5 else Image.new("RGB", (side, side), _colour(rng, _palette(rng, 1, 0)))
    )
    draw = ImageDraw.Draw(image)
    vivid = rng.integers(0, 256, (int(rng.integers(1, 12)), 3)).astype(np.uint8)
    palette = vivid if rng.random() < 0.7 else _palette(rng, 8, 0.5)
    radius = np.exp(rng.uniform(np.log(0.8), np.log(9)))
    number = int(min(rng.uniform(0.02, 1.0) * side**2 / (np.pi * radius**2), 12000))
    centres, radii = rng.uniform(0, side, (number, 2)), radius * rng.lognormal(0, rng.uniform(0, 0.5), number)
    shape = draw.rectangle if rng.random() < 0.3 else draw.ellipse
    for (x, y), r, colour in zip(centres, radii, palette[rng.integers(0, len(palette), number)], strict=True):
        shape((x - r, y - r, x + r, y + r), fill=tuple(colour.tolist()))
    return image


def _page(rng: Random, side: int) -> Image.Image:
    paper, ink = _palette(rng, 1, 0)[0], _palette(rng, 1, 0)[0]
    if rng.random() < 0.6:
        paper, ink = np.array([rng.integers(200, 256)] * 3), np.array([rng.integers(0, 70)] * 3)
    image = Image.new("RGB", (side, side), tuple(int(c) for c in paper))
    draw = ImageDraw.Draw(image)
    size = int(np.exp(rng.uniform(np.log(7), np.log(60))))
    font = ImageFont.load_default(size)
    letters = np.array(list(string.ascii_letters + string.digits + " " * 14 + ".,;"))
    margin, step = int(rng.integers(0, side // 6)), size * float(rng.uniform(1.05, 1.8))
    for line in range(int((side - margin) / step)):
        text = "".join(rng.choice(letters, int((side - 2 * margin) / size * 1.9)))
        draw.text((margin, margin + line * step), text, fill=tuple(int(c) for c in ink), font=font)
    return image


KINDS: dict[str, Callable[[Random, int], Image.Image]] = {
    "noise": _noise, "grating": _grating, "checker": _checker, "leaves": _leaves, "gravel": _gravel,
    "specks": _specks, "page": _page,
}  # fmt: skip


def _view(rng: Random, image: Image.Image) -> Image.Image:
    """The texture as a camera sees it: turned, in perspective, unevenly lit, blurred, noisy."""
    side = image.width
    if rng.random() < 0.7:  # the texture's quadrilateral that fills the picture, far edge narrower in the picture
        far = rng.uniform(0, 0.35)
        near = [(far, 0.0), (0.0, 1.0), (1.0, 1.0), (1 - far, 0.0)]
        if rng.random() < 0.7:  # the far edge shows more of the texture
            near = [(0.0, 0.0), (far, 1.0), (1 - far, 1.0), (1.0, 0.0)]
        corners = (np.array(near) - 0.5) * rng.uniform(0.6, 1.0)
        angle = rng.choice([0, rng.uniform(-0.3, 0.3), rng.uniform(-np.pi, np.pi)])
        if abs(angle) > 0.31:
            corners = corners * 0.7
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        quad = ((corners @ turn.T + 0.5) * side).clip(0, side).ravel()
        method = Image.Transform.QUAD
        image = image.transform((side, side), method, tuple(quad), Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.6)))
    pixels = np.asarray(image, np.float32)
    if rng.random() < 0.6:
        light = _spectrum(rng, 64, 2.0, 1)[..., 0] * rng.uniform(0, 0.3) + 1
        soft = Image.fromarray(light.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
        pixels = pixels * np.asarray(soft)[..., None].clip(0.3, 1.7)
    if rng.random() < 0.5:
        pixels = pixels + rng.normal(0, rng.uniform(0, 14), pixels.shape).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def picture(seed: int, index: int, side: int = SIDE) -> Image.Image:
    """Picture ``index`` of the endless row that ``seed`` starts: RGB, ``side`` x ``side``; the kinds take turns.

    A quarter of the pictures is two textures side by side or one above the other, as ground and wall are.
    """
    rng = np.random.default_rng([seed, index])
    names = list(KINDS)
    image = _view(rng, KINDS[names[index % len(names)]](rng, side))
    if rng.random() < 0.25:
        other = _view(rng, KINDS[names[rng.integers(len(names))]](rng, side))
        cut = int(side * rng.uniform(0.2, 0.8))
        image.paste(
            other.crop((0, cut, side, side)) if rng.random() < 0.5 else other,
            (0, cut) if rng.random() < 0.5 else (cut, 0),
        )
    return image

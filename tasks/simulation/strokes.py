"""A picture redrawn as strokes, as a hand would: thinned, traced, and drawn again with another slant, place and pen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter

from tasks.labelling.drawing import Alpha

Points = npt.NDArray[np.float64]  # points × (x, y), in [0, 1], the picture's width and height being 1
Mask = npt.NDArray[np.bool_]

_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))  # rows and columns, clockwise
_LARGE = 112  # pixels: thinned at this size, so that lines are smooth
_FINER = 2  # times: drawn larger, then averaged, so that edges are soft as a browser's are


@dataclass(frozen=True)
class Hand:
    """How far a hand strays; every value is the largest deviation at `strength` 1."""

    slant: float = 0.45  # shear: x moved for each y
    turn: float = 18.0  # degrees
    stretch: float = 0.28  # of width and height, as a share
    place: float = 0.1  # of the picture's width
    bend: float = 0.05  # slow waves in the shape, of the picture's width
    pen: tuple[float, float] = (0.05, 0.13)  # of the picture's width, thinnest and thickest


def strokes(pixels_HW: npt.NDArray[np.uint8]) -> list[Points]:
    """The lines of a grey picture. Dark on light works as well: what covers less is taken for the ink."""
    larger = Image.fromarray(pixels_HW).resize((_LARGE, _LARGE), Image.Resampling.BICUBIC)
    mask = _ink(np.array(larger))
    kept = [line for line in _trace(_thin(mask)) if len(line) >= _LARGE // 12] or [_dot(mask)]
    height, width = mask.shape
    return [_smooth((np.array(line, dtype=float)[:, ::-1] + 0.5) / (width, height)) for line in kept]


def redraw(
    lines: list[Points], canvas: int, strength: float, rng: np.random.Generator, hand: Hand | None = None
) -> Alpha:
    """The lines drawn once more on a canvas × canvas ground. strength: 0 tidy, 1 as careless as `hand` allows."""
    hand = hand or Hand()
    angle = math.radians(hand.turn * strength * rng.uniform(-1, 1))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1.0, hand.slant * strength * rng.uniform(-1, 1)], [0.0, 1.0]])
    stretch = np.diag(1 - hand.stretch * strength * rng.uniform(-0.3, 1, size=2))
    shift = hand.place * strength * rng.uniform(-1, 1, size=2)
    waves = rng.uniform(-1, 1, size=(2, 3))
    pen = rng.uniform(*np.interp([0.5 - strength / 2, 0.5 + strength / 2], [0, 1], hand.pen))
    drawn = []
    for line in lines:
        moved = (line - 0.5) @ (turn @ shear @ stretch).T + 0.5 + shift
        phase = 2 * math.pi * moved[:, ::-1]
        moved = moved + hand.bend * strength * waves[:, 0] * np.sin(phase * (0.7 + 0.3 * waves[:, 1]) + 3 * waves[:, 2])
        drawn.append(np.clip(moved, pen / 2, 1 - pen / 2))
    return _draw(drawn, canvas, float(pen))


def _draw(lines: list[Points], canvas: int, pen: float) -> Alpha:
    side, width = canvas * _FINER, pen * canvas * _FINER
    picture = Image.new("L", (side, side))
    brush = ImageDraw.Draw(picture)
    for line in lines:
        points = [(float(x), float(y)) for x, y in line * side]
        brush.line(points, fill=255, width=max(1, round(width)), joint="curve")
        for x, y in (points[0], points[-1]):
            brush.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.array(picture.resize((canvas, canvas), Image.Resampling.BOX))


def _ink(pixels_HW: npt.NDArray[np.uint8]) -> Mask:
    """What is well lighter than the whole picture and than its own surroundings, so that small holes stay open."""
    grey = pixels_HW.astype(float)
    if np.median(grey) > grey.mean():  # dark on light
        grey = 255 - grey
    grey -= grey.min()
    around = uniform_filter(grey, size=_LARGE // 5, mode="constant")
    mask: Mask = (grey > 0.3 * max(1.0, grey.max())) & (grey > around)
    return mask


def _thin(mask: Mask) -> Mask:
    """Zhang and Suen's thinning (CACM 27(3), 1984): lines one pixel wide, nothing torn apart."""
    thin = np.pad(mask, 1)
    while True:
        before = int(thin.sum())
        for side in (0, 1):
            around = [np.roll(thin, (-row, -column), (0, 1)) for row, column in _AROUND]
            neighbours = sum(n.astype(int) for n in around)
            turns = sum((~a & b).astype(int) for a, b in zip(around, around[1:] + around[:1], strict=True))
            north, east, south, west = around[0], around[2], around[4], around[6]
            loose = (
                ~(north & east & south) & ~(east & south & west)
                if side == 0
                else (~(north & east & west) & ~(north & south & west))
            )
            thin = thin & ~((neighbours >= 2) & (neighbours <= 6) & (turns == 1) & loose)
        if int(thin.sum()) == before:
            return thin[1:-1, 1:-1]


def _trace(thin: Mask) -> list[list[tuple[int, int]]]:
    """Thinned pixels → lines: from an end where there is one, on as straight as one can, each pixel once."""
    left = {(int(row), int(column)) for row, column in np.argwhere(thin)}
    lines = []
    while left:
        line = [min(left, key=lambda point: (len(_beside(point, left)), point))]
        left.remove(line[0])
        while ahead := _beside(line[-1], left):
            back = line[max(0, len(line) - 4)]
            step = (line[-1][0] - back[0], line[-1][1] - back[1])
            here = line[-1]
            line.append(max(ahead, key=lambda p: (_along(step, here, p), p)))
            left.remove(line[-1])
        lines.append(line)
    return lines


def _beside(point: tuple[int, int], among: set[tuple[int, int]]) -> list[tuple[int, int]]:
    return [near for row, column in _AROUND if (near := (point[0] + row, point[1] + column)) in among]


def _along(step: tuple[int, int], here: tuple[int, int], there: tuple[int, int]) -> float:
    """How straight on from `here` it is to go `there`; nearer first where there is no direction yet."""
    move = (there[0] - here[0], there[1] - here[1])
    length = math.hypot(*move)
    return (step[0] * move[0] + step[1] * move[1]) / length - 0.01 * length


def _dot(mask: Mask) -> list[tuple[int, int]]:
    """The middle of the ink as a line of two points: a picture without lines is a dot."""
    rows, columns = np.nonzero(mask)
    middle = (int(rows.mean()), int(columns.mean())) if len(rows) else (mask.shape[0] // 2, mask.shape[1] // 2)
    return [middle, (middle[0], middle[1] + 1)]


def _smooth(line: Points) -> Points:
    """Means of three, a few times over, the ends kept: pixels make stairs."""
    for _ in range(8 if len(line) > 2 else 0):
        line = np.concatenate([line[:1], (line[:-2] + line[1:-1] + line[2:]) / 3, line[-1:]])
    return line

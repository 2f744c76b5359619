"""Counting a video: a CSV line per frame, a plot over time, and the video with the density laid over it."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..data.images import BadFile, require_file
from ..device import Precision
from ..errors import UserError, printable
from ..evaluation.inference import shown
from ..files import writing
from ..plots import heat_peak, overlay
from .ground import Ground, GroundCount, NoGround
from .pictures import Counted, Prediction, count_pixels
from .regions import Regions, region_shares
from .workers import Workers

if TYPE_CHECKING:
    from ..models import CrowdCounter
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}
)


class Frame(NamedTuple):
    """A decoded frame, or the reason why there is none."""

    number: int  # of the frame in the file, damaged ones included
    time: float  # seconds since the first frame
    pixels: np.ndarray | None  # uint8 [H, W, 3] RGB, upright
    problem: str = ""


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV: pip install 'dkpnet_ext[video]'") from None
    return av


def read_frames(path: Path) -> Iterator[Frame]:
    """Decode a video frame by frame; a damaged one is yielded without pixels, and decoding goes on.

    Raises:
        UserError: no such file, no video, or PyAV is not installed.
    """
    av = _import_av()
    path = Path(path)
    try:
        require_file(path)
        container = _open(path)
    except BadFile as error:
        raise UserError(f"video {path}: {error}") from None
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"video {path}: not a readable video ({reason})") from None
    with container:
        if not container.streams.video:
            raise UserError(f"video {path}: holds no video stream")
        stream = container.streams.video[0]
        rate = stream.average_rate or 25  # frames per second
        # An AVI has no times but the packets' places, in the order of decoding; its frames come in the order of the scene.
        places: deque[float] | None = deque() if container.format.name == "avi" else None
        index, start = 0, None
        broken = False  # since the last whole key frame: what follows a damaged one is built on it
        try:
            for packet in container.demux(stream):
                if places is not None and packet.size and packet.dts is not None:
                    places.append(float(packet.dts * packet.time_base))
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    yield Frame(index, float(index / rate), None, f"cannot be decoded ({error.strerror})")
                    index += 1
                    if places:
                        places.popleft()
                    continue
                for frame in frames:
                    time = frame.time if places is None else places.popleft() if places else None
                    if time is None:
                        time = float(index / rate)
                    else:
                        start = time if start is None else start  # a part of a stream begins late
                        time -= start
                    if frame.key_frame:
                        broken = frame.is_corrupt
                    if frame.is_corrupt or broken:
                        yield Frame(
                            index, time, None, "is damaged" if frame.is_corrupt else "follows a damaged key frame"
                        )
                    else:
                        upright = np.rot90(frame.to_ndarray(format="rgb24"), _rotation(frame) // 90)
                        yield Frame(index, time, np.ascontiguousarray(upright))
                    index += 1
        except av.error.FFmpegError as error:  # the file ends in the middle of a packet
            yield Frame(index, float(index / rate), None, f"and what follows cannot be read ({error.strerror})")


def _open(path: Path, mode: Literal["r", "w"] = "r") -> Any:
    """PyAV's container. A name that is not UTF-8 it cannot take, so it gets the open file instead."""
    file: Any = str(path)
    try:
        file.encode()
    except UnicodeEncodeError:
        file = path.open(f"{mode}b")
    return _import_av().open(file, mode, format="mp4" if mode == "w" else None)


def _rotation(frame: Any) -> int:
    """Degrees counterclockwise by which a phone's video has to be turned to be upright."""
    return frame.rotation


def outputs_of_video(name: str, points: bool = False) -> list[str]:
    """Names of the files that `count_video` writes."""
    return [f"{name}{end}" for end in ("-counts.csv", "-counts.png", "-density.mp4", *["-points.csv"] * points)]


def count_video(
    model: CrowdCounter,
    path: Path,
    output: Path,
    name: str,
    regions: Regions,
    precision: Precision = "fp32",
    as_is: bool = False,
    progress: bool = False,
    points: bool = False,
    ground: Ground | None = None,
) -> Prediction:
    """Count every frame of a video.

    Writes ``<name>-counts.csv`` (frame, seconds, count, one column per region), ``<name>-counts.png`` and
    ``<name>-density.mp4`` into ``output``, whose frames have the times of the video's own. The density's colours keep one
    scale, which follows the crowd slowly.

    Args:
        points: also write ``<name>-points.csv`` (frame, seconds, x, y, score), as many points of a frame as its rounded count.
        ground: also people per square metre, a column of the table; the camera must stand still. Where that cannot be said,
            the column is empty, and a note says why.

    Returns:
        the mean count of its frames (people on the ground likewise, and the densest square of any frame), and the frames
        that could not be read.

    Raises:
        UserError: a file that is no video or has no readable frame; ground points that do not fit it; an output that
            cannot be written.
    """
    written = [output / file for file in outputs_of_video(name, points)]
    table, plot, video = written[:3]
    rows: list[list[float]] = []
    skipped: list[str] = []
    found: Counted | None = None
    shares: dict[str, np.ndarray] = {}
    crowded: list[GroundCount] = []
    notes: list[str] = []
    peak = 0.0

    def count(frame: Frame) -> Counted | None:
        with workers.turn:
            return None if frame.pixels is None else count_pixels(model, frame.pixels, precision, as_is)

    def draw() -> None:
        with writing(plot):
            _plot(np.array(rows)[:, : 2 + len(regions)], ["whole frame", *regions], plot)

    with Workers(model) as workers:
        with writing(video), ExitStack() as stack:  # most of a video is written when it is closed
            columns = [*regions, *["people per square metre"] * (ground is not None)]
            results = _Results(stack, path, table, video, columns, written[3] if points else None)
            frames = shown(read_frames(path), printable(f"counting {path.name}"), progress, "frame")
            for frame, counted in workers.each(count, frames):
                if counted is None:
                    skipped.append(f"frame {frame.number} {frame.problem}")
                    continue
                before, found = found, counted
                if before is None or before.size != found.size:
                    shares = region_shares(regions, found.size, found.stride, found.counted)
                cells = found.density.double().numpy()
                counts = [float((cells * share).sum()) for share in shares.values()]
                if ground is not None:
                    counts.append(_per_square_metre(found, ground, crowded, notes))
                peak = max(0.95 * peak, heat_peak(found.density))
                rows.append([frame.time, found.heads, *counts])
                results.add(frame, found, rows[-1], peak)
            if found is not None:
                workers.begin(plot, draw)  # while the encoder writes the last frames
        for _, drawn in workers.finished(0):
            drawn.result()
    if found is None:
        raise UserError(f"video {path}: no readable frame" + (f" ({skipped[0]})" if skipped else ""))
    means = np.mean(rows, axis=0)
    return Prediction(
        str(path), float(means[1]), found.size, found.counted, dict(zip(regions, map(float, means[2:]), strict=False)),
        [file.name for file in written], len(rows), skipped, notes, _mean_ground(crowded),
    )  # fmt: skip


def _per_square_metre(found: Counted, ground: Ground, crowded: list[GroundCount], notes: list[str]) -> float:
    """People per square metre in a frame, of whom ``crowded`` gets the count; NaN, with the reason in ``notes``, if unknown."""
    try:
        crowded.append(found.on_ground(ground))
    except NoGround as reason:
        notes[:] = [str(reason)]
        return float("nan")
    return crowded[-1].people / crowded[-1].area


def _mean_ground(crowded: Sequence[GroundCount]) -> dict[str, Any] | None:
    """People on the ground on average, the densest square of any frame."""
    if not crowded:
        return None
    densest = max(crowded, key=lambda each: each.densest).spoken()
    people = float(np.mean([each.people for each in crowded]))
    return densest | {"people": people, "people_per_square_metre": people / densest["square_metres"]}


class _Results:
    """The table and the overlaid video, which are created with the first frame and closed by ``stack``."""

    def __init__(
        self, stack: ExitStack, path: Path, table: Path, video: Path, columns: list[str], points: Path | None
    ) -> None:
        self.stack, self.path, self.table, self.video, self.columns = stack, path, table, video, columns
        self.points = points
        self.encoder: _Encoder | None = None
        self.writer: Any = None
        self.heads: Any = None  # writer of the points

    def add(self, frame: Frame, found: Counted, row: list[float], peak: float) -> None:
        """A frame's line (seconds, count, the further columns, empty where not known), its points and its picture."""
        assert frame.pixels is not None
        located = found.located() if self.points else None
        picture = overlay(frame.pixels, found.density, found.heads, peak, points=located)
        with writing(self.table.parent):
            if self.encoder is None:
                self.writer = self._table(self.table, "count", *map(printable, self.columns))
                self.heads = self.points and self._table(self.points, "x", "y", "score")
                self.encoder = self.stack.enter_context(_Encoder(self.video, picture.size, _rate(self.path)))
            self.encoder.add(picture, frame)
            self.writer.writerow([frame.number, *("" if np.isnan(value) else f"{value:.3f}" for value in row)])
            for x, y, score in () if located is None else located:
                self.heads.writerow([frame.number, f"{row[0]:.3f}", f"{x:.2f}", f"{y:.2f}", f"{score:.4f}"])

    def _table(self, path: Path, *columns: str) -> Any:
        writer = csv.writer(self.stack.enter_context(path.open("w", newline="", encoding="utf-8")))
        writer.writerow(["frame", "seconds", *columns])
        return writer


def _rate(path: Path) -> Any:
    """Frames per second as a fraction; 25 where the file does not say."""
    with _open(path) as container:
        return container.streams.video[0].average_rate or 25


class _Encoder:
    """Writes pictures of one size, each with its time, as H.264 (MPEG-4 where PyAV was built without it)."""

    CLOCK = 60_000  # ticks per second of the pictures' times; MPEG-4 takes at most 65535

    def __init__(self, path: Path, size: tuple[int, int], rate: Any) -> None:
        av = _import_av()
        self.size = tuple(side - side % 2 or 2 for side in size)  # both codecs need even sides
        self.last = -1
        self.container = _open(path, "w")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self.stream = self.container.add_stream(codec, rate=rate)
        self.stream.width, self.stream.height = self.size
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, self.CLOCK)
        if codec == "libx264":
            # The default preset, medium, takes five times the time of this one for 4 % fewer bytes (bench/results/engines.md).
            self.stream.options = {"crf": "20", "preset": "superfast"}

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *exception: object) -> None:
        with self.container:
            self.container.mux(self.stream.encode(None))

    def add(self, picture: Any, source: Frame) -> None:
        frame = _import_av().VideoFrame.from_image(picture.resize(self.size) if picture.size != self.size else picture)
        # Its own time, whatever the rate: a skipped frame stays on the screen until the next.
        self.last = max(self.last + 1, round(source.time * self.CLOCK))
        frame.pts, frame.time_base = self.last, Fraction(1, self.CLOCK)
        self.container.mux(self.stream.encode(frame))


def _plot(rows: np.ndarray, names: list[str], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3))  # margins by hand: finding them takes as long as two frames
    figure.subplots_adjust(left=0.1, right=0.98, top=0.96, bottom=0.17)
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for name, counts in zip(names, rows.T[1:], strict=True):
        axis.plot(rows[:, 0], counts, label=printable(name).replace("$", r"\$"))
    axis.set_xlabel("seconds")
    axis.set_ylabel("people")
    axis.set_ylim(bottom=min(0, rows[:, 1:].min()))
    axis.grid(alpha=0.3)
    if len(names) > 1:
        axis.legend()
    figure.savefig(path, dpi=120)

"""Frames of a video are counted one by one; what is damaged is named and skipped."""

import csv
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from disk import largest_file
from PIL import Image

from dkpnet_ext.counting.ground import read_ground
from dkpnet_ext.counting.pictures import count_pixels
from dkpnet_ext.counting.prediction import predict_files
from dkpnet_ext.counting.video import count_video, read_frames
from dkpnet_ext.errors import UserError
from dkpnet_ext.files import OutputError

av = pytest.importorskip("av", reason="PyAV is not installed")

FRAMES = 6
SIZE = (70, 97)  # odd, so that the encoder has to adapt


def write_video(path, frames, codec="mjpeg", gop=12):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = gop
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def frames_of(size=SIZE, count=FRAMES):
    y, x = np.mgrid[: size[0], : size[1]]
    return [
        np.stack([(x * 2 + 20 * i) % 256, (y * 3) % 256, np.full(size, 40 * i)], -1).astype(np.uint8)
        for i in range(count)
    ]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "crowd.avi"
    write_video(path, frames_of())
    return path


@pytest.mark.parametrize("suffix", [".3gp", ".MTS", ".wmv"])
def test_videos_of_phones_and_camcorders_are_found_in_a_folder(model, video, tmp_path, suffix):
    """At commit 3418349 a folder of them held no video."""
    (tmp_path / "in").mkdir()
    video.rename(tmp_path / "in" / f"clip{suffix}")
    (found,) = predict_files(model, [tmp_path / "in"], tmp_path / "out")
    assert found.error is None and found.frames == FRAMES


def test_every_frame_is_counted(model, video, tmp_path):
    half = np.zeros(SIZE, bool)
    half[:, :50] = True
    regions = {"left": half, "right": ~half}
    found = count_video(model, video, tmp_path, "crowd", regions)
    assert found.frames == FRAMES and found.size == SIZE and not found.skipped
    rows = list(csv.DictReader((tmp_path / "crowd-counts.csv").open()))
    assert [int(row["frame"]) for row in rows] == list(range(FRAMES))
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], np.arange(FRAMES) / 5, atol=1e-3)
    for row, frame in zip(rows, read_frames(video), strict=True):
        assert float(row["count"]) == pytest.approx(model.count(frame.pixels), abs=1e-3)
        assert float(row["left"]) + float(row["right"]) == pytest.approx(float(row["count"]), abs=2e-3)
    assert found.count == pytest.approx(np.mean([float(row["count"]) for row in rows]), abs=1e-3)
    assert found.outputs == ["crowd-counts.csv", "crowd-counts.png", "crowd-density.mp4"]
    overlaid = list(read_frames(tmp_path / "crowd-density.mp4"))
    assert len(overlaid) == FRAMES and overlaid[0].pixels.shape[0] > 70 and overlaid[0].pixels.shape[1] % 2 == 0
    assert np.asarray(Image.open(tmp_path / "crowd-counts.png")).std() > 5


def test_points_and_people_per_square_metre(model, video, tmp_path):
    """Of each frame as of a picture: as many points as the rounded count, people on the ground."""
    ground = read_ground([[10, 60], [86, 60], [66, 20], [30, 20]], [10, 20])
    found = count_video(model, video, tmp_path, "crowd", {}, points=True, ground=ground)
    assert found.outputs[3:] == ["crowd-points.csv"]
    rows = list(csv.DictReader((tmp_path / "crowd-counts.csv").open()))
    points = list(csv.DictReader((tmp_path / "crowd-points.csv").open()))
    spoken = []
    for row, frame in zip(rows, read_frames(video), strict=True):
        alone = count_pixels(model, frame.pixels)
        mine = [
            [float(point[key]) for key in ("x", "y", "score")] for point in points if point["frame"] == row["frame"]
        ]
        assert len(mine) == round(float(row["count"]))
        np.testing.assert_allclose(np.array(mine).reshape(-1, 3), alone.located(), atol=0.02)
        spoken.append(alone.on_ground(ground).spoken())
        assert float(row["people per square metre"]) == pytest.approx(spoken[-1]["people_per_square_metre"], abs=1e-3)
    assert len(points) > FRAMES
    assert found.ground["people"] == pytest.approx(np.mean([each["people"] for each in spoken]), rel=1e-3)
    densest = max(each["densest_square"]["people_per_square_metre"] for each in spoken)
    assert found.ground["densest_square"]["people_per_square_metre"] == pytest.approx(densest, rel=1e-3)


def test_a_camera_too_low_leaves_the_column_empty(model, video, tmp_path):
    """At commit 41a985a such a video had no count."""
    ground = read_ground([[10, 60], [86, 60], [66, 20], [30, 20]], [1, 2])
    found = count_video(model, video, tmp_path, "crowd", {}, ground=ground)
    rows = list(csv.DictReader((tmp_path / "crowd-counts.csv").open()))
    assert len(rows) == FRAMES and {row["people per square metre"] for row in rows} == {""}
    assert found.count == pytest.approx(np.mean([float(row["count"]) for row in rows]), abs=1e-3)
    (note,) = found.notes
    assert found.ground is None and note.startswith("no people per square metre: by these points the camera is ")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_video_of_variable_rate_keeps_its_times(model, tmp_path, codec, monkeypatch):
    """Phones and screen recorders write such; on commit c572cb6 the overlaid video ran at one rate."""
    times = [0, 0.04, 0.5, 2.0, 2.04, 4.0]
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, pixels in zip(times, frames_of((48, 64)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    if codec == "mpeg4":
        monkeypatch.setattr(av, "codecs_available", set())
    count_video(model, tmp_path / "clip.mkv", tmp_path, "clip", {})
    rows = list(csv.DictReader((tmp_path / "clip-counts.csv").open()))
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], times, atol=1e-3)
    overlaid = [frame.time for frame in read_frames(tmp_path / "clip-density.mp4")]
    np.testing.assert_allclose(overlaid, times, atol=2e-3)


def test_a_damaged_frame_is_skipped(model, video, tmp_path):
    data = bytearray(video.read_bytes())
    starts = [i for i in range(len(data) - 2) if data[i : i + 3] == b"\xff\xd8\xff"]  # each MJPEG frame's start
    assert len(starts) == FRAMES
    data[starts[2] : starts[3] - 16] = bytes(starts[3] - 16 - starts[2])  # up to the next chunk header
    video.write_bytes(data)
    found = count_video(model, video, tmp_path, "crowd", {})
    assert found.frames == FRAMES - 1
    assert len(found.skipped) == 1 and found.skipped[0].startswith("frame 2 cannot be decoded")
    rows = list(csv.DictReader((tmp_path / "crowd-counts.csv").open()))
    assert [int(row["frame"]) for row in rows] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_what_follows_a_damaged_key_frame_is_not_counted(model, tmp_path, codec):
    """Up to the next key frame the decoder goes on from a broken picture; at commit 3418349 frames 4 and 5 were counted."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV does not write {codec}")
    path = tmp_path / "clip.mkv"
    write_video(path, frames_of((96, 128), 9), codec, gop=3)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 3, 6]
        begin, size = packets[3].pos + packets[3].size // 2, packets[3].size // 4
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = bytes(value ^ 0x5A for value in data[begin : begin + size])
    path.write_bytes(data)
    found = count_video(model, path, tmp_path, "clip", {})
    assert found.frames == 6
    assert [line.split(" (")[0] for line in found.skipped] == [
        "frame 3 is damaged", "frame 4 follows a damaged key frame", "frame 5 follows a damaged key frame",
    ]  # fmt: skip


def test_a_rotated_video_is_upright(tmp_path, monkeypatch):
    write_video(tmp_path / "x.avi", frames_of((48, 64), 1))
    plain = next(read_frames(tmp_path / "x.avi")).pixels
    # No encoder of PyAV writes the display matrix that phones do; its value is set on the decoded frame instead.
    monkeypatch.setattr("dkpnet_ext.counting.video._rotation", lambda frame: -90)
    turned = next(read_frames(tmp_path / "x.avi")).pixels
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize(("content", "message"), [(b"", "not a readable video"), (b"x" * 5000, "not a readable video")])
def test_no_video(model, tmp_path, content, message):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        count_video(model, tmp_path / "x.mp4", tmp_path, "x", {})
    assert "x.mp4" in str(error.value) and "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mp4"]


def test_names_that_are_not_utf8(model, video, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi"))
    try:
        video.rename(path)
    except OSError:
        pytest.skip("this disk takes no such name")
    found = count_video(model, path, tmp_path, path.stem, {"gate \udcff$": np.ones(SIZE, bool)})
    assert found.frames == FRAMES and all((tmp_path / name).stat().st_size for name in found.outputs)


def test_missing_and_audio_only(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(read_frames(tmp_path / "nothing.mp4"))
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UserError, match="no video stream"):
        list(read_frames(tmp_path / "a.wav"))


def test_without_pyav(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"dkpnet_ext\[video\]"):
        list(read_frames(tmp_path / "x.mp4"))


def write_late(path, frames, start, codec="libx264"):
    """A stream that does not begin at 0, with frames that are coded out of their order."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.options = {"bf": "2", "b-adapt": "0"}
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(5 * start) + number, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="PyAV was built without H.264")
@pytest.mark.parametrize(("name", "start"), [("a.avi", 0), ("a.ts", 10_000), ("a.mkv", 100), ("a.mp4", 0)])
def test_times_begin_with_the_first_frame_and_go_up(model, tmp_path, name, start):
    """At commit 4eb5a94 those of an AVI with B-frames jumped, and a part of a camera's stream began after hours."""
    write_late(tmp_path / name, frames_of((48, 64), 7), start)
    count_video(model, tmp_path / name, tmp_path, "clip", {})
    rows = list(csv.DictReader((tmp_path / "clip-counts.csv").open()))
    np.testing.assert_allclose([float(row["seconds"]) for row in rows], np.arange(7) / 5, atol=2e-3)
    blue = [frame.pixels[..., 2].mean() for frame in read_frames(tmp_path / name)]
    assert np.all(np.diff(blue) > 20), "in the order of the scene"
    with av.open(str(tmp_path / "clip-density.mp4")) as container:
        assert container.duration < 3e6


def test_an_avi_with_gaps_keeps_its_times(tmp_path):
    """Cameras leave frames out; the file has empty packets then."""
    places = [0, 1, 2, 10, 11, 12]
    with av.open(str(tmp_path / "gaps.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for place, pixels in zip(places, frames_of((48, 64)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    times = [frame.time for frame in read_frames(tmp_path / "gaps.avi")]
    np.testing.assert_allclose(times, np.array(places) / 5, atol=1e-3)


def test_a_disk_that_is_full_at_the_end(model, video, tmp_path):
    """Most of a video is written when it is closed; at commit 4eb5a94 that was a traceback."""
    count_video(model, video, tmp_path, "whole", {})
    size = (tmp_path / "whole-density.mp4").stat().st_size
    with largest_file(size - 100), pytest.raises(OutputError, match="cannot be written"):
        count_video(model, video, tmp_path, "crowd", {})

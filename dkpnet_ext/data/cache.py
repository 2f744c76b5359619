"""The cache of decoded, resized images.

It holds one ``.npy`` per image (uint8 [H, W, 3] RGB, upright), so that a training crop is a slice of a
memory-mapped file and touches only its own pages. A file's name is a hash of the source's content and of the
cached size: the cache never goes stale, several runs share it, and it may be deleted between them. Files are
written under another name and renamed, so several processes may fill it at once.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError, say
from ..files import OutputError, write_atomically
from .images import BadFile, decode
from .regions import paint_outside

# Of what decoding gives. 1 left 12 bits in 16 nearly black; 2 squashed turned TIFFs and took frames for others.
_VERSION = 3
# Of a compressed file this many bytes are hashed at either end; its size and time stamp stand for the middle. Frames that are
# not compressed may have black borders and one size: all of them is hashed.
_HASHED = 1 << 16
_COMPRESSED = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF")


class Job(NamedTuple):
    """An image to be cached."""

    source: Path
    size: tuple[int, int]  # (H, W) in the cache
    region: np.ndarray | None = None  # of interest, see `regions`, in an image of size `source_size`
    source_size: tuple[int, int] = (0, 0)


def default_cache() -> Path:
    """``$DKPNET_CACHE``, else ``~/.cache/dkpnet_ext``."""
    return Path(os.environ.get("DKPNET_CACHE") or "~/.cache/dkpnet_ext").expanduser()


def _name(job: Job) -> str:
    stat = job.source.stat()
    digest = hashlib.blake2b(f"{_VERSION} {stat.st_size} {stat.st_mtime_ns} {job.size}".encode(), digest_size=16)
    with job.source.open("rb") as file:
        digest.update(start := file.read(_HASHED))
        if start.startswith(_COMPRESSED):
            file.seek(max(len(start), stat.st_size - _HASHED))
        while part := file.read(1 << 24):
            digest.update(part)
    if job.region is not None:
        digest.update(f"{job.region.dtype} {job.region.shape} {job.source_size}".encode() + job.region.tobytes())
    name = digest.hexdigest()
    return f"{name[:2]}/{name}.npy"


def _header(size: tuple[int, int]) -> bytes:
    """The first bytes of the ``.npy`` file of an image of ``size``."""
    file = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (*size, 3)}
    np.lib.format.write_array_header_1_0(file, described)  # type: ignore[arg-type]
    return file.getvalue()


def _bytes(size: tuple[int, int]) -> int:
    return len(_header(size)) + 3 * size[0] * size[1]


def _is_cached(target: Path, size: tuple[int, int]) -> bool:
    """Whether the file is whole: what a power failure cut off or left as other bytes is decoded anew."""
    try:
        with target.open("rb") as file:
            header = _header(size)
            return os.fstat(file.fileno()).st_size == _bytes(size) and file.read(len(header)) == header
    except OSError:
        return False


def _fill(job: Job, target: Path) -> None:
    """Decode, resize and write one image: atomically, so that no reader sees half a file."""
    image = np.asarray(decode(job.source, job.size))
    if job.region is not None:
        image = paint_outside(image, job.region, job.source_size)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: np.save(path, image))


def fill_cache(domain: str, jobs: Sequence[Job], cache: Path, progress: bool) -> tuple[list[Path], dict[Path, BadFile]]:
    """Decode into ``cache`` what it lacks. Returns each job's file, and why those that failed did.

    Raises `UserError` if the cache cannot be written or has no room.
    """
    from tqdm import tqdm

    targets = [cache / "images" / _name(job) for job in jobs]
    todo = {target: job for target, job in zip(targets, jobs, strict=True) if not _is_cached(target, job.size)}
    bad: dict[Path, BadFile] = {}

    def fill(target: Path) -> None:
        try:
            _fill(todo[target], target)
        except BadFile as error:
            bad[target] = error

    if not todo:
        return targets, bad
    needed = sum(_bytes(job.size) for job in todo.values())
    if progress:
        say(f"{domain}: caching {len(todo)} images, {needed / 1e9:.2f} GB, in {cache}", error=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if needed > free:
            raise UserError(
                f"{cache}: {domain} needs {needed / 1e9:.2g} GB here and {free / 1e9:.2g} GB are free; "
                "set DKPNET_CACHE to a larger disk"
            )
        # Threads, as Pillow and file writes release the GIL.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            try:
                hide = None if progress else True  # None: unless this is a terminal
                for _ in tqdm(pool.map(fill, todo), f"caching {domain}", len(todo), unit="image", disable=hide):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    except OutputError as error:
        raise UserError(f"image cache: {error}; set DKPNET_CACHE to another folder") from None
    except OSError as error:
        raise UserError(f"{cache}: cannot write the image cache ({error.strerror}); set DKPNET_CACHE") from None
    return targets, bad

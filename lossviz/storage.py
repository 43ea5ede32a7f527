"""Files that are whole or absent, and fingerprints that tell two runs apart.

Everything the kit writes goes to a temporary file in the same folder and is renamed into place,
so that a killed process leaves either the old file or the new one. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

__all__ = ["atomic_write", "check_writable", "fingerprint", "npz_bytes", "read_npz"]

DAMAGE = (
    ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, MemoryError, RuntimeError,
    NotImplementedError, OverflowError, SyntaxError, IndexError, tokenize.TokenError, struct.error,
    zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
BOMB = 2**30, 100  # bytes from which on, and ratio above which, a file is too good to be true


def fingerprint(*parts: object) -> str:
    """Return 16 hexadecimal digits that change when any part changes.

    Parameters
    ----------
    *parts
        Tensors and arrays (their values, shape and kind count), mappings (order does not count),
        sequences, strings, bytes, numbers, booleans or ``None``.

    Returns
    -------
    str
        The first 16 digits of a SHA-256 sum.

    Raises
    ------
    TypeError
        If a part is of another kind.

    Examples
    --------
    >>> fingerprint(1, "a") == fingerprint(1, "a")
    True
    >>> fingerprint(1) == fingerprint(1.0)
    False
    """
    digest = hashlib.sha256()
    _feed(digest, parts)
    return digest.hexdigest()[:16]


def _feed(digest, part: object) -> None:
    if isinstance(part, torch.Tensor):
        part = part.detach().cpu()
        if part.dtype == torch.bfloat16:
            digest.update(b"bfloat16 ")
            part = part.float()
        part = part.contiguous().numpy()
    if isinstance(part, np.ndarray):
        digest.update(f"array {part.dtype.str} {part.shape} ".encode())
        digest.update(np.ascontiguousarray(part).data if part.size else b"")
    elif isinstance(part, Mapping):
        digest.update(f"mapping {len(part)} ".encode())
        for key in sorted(part):
            _feed(digest, key)
            _feed(digest, part[key])
    elif isinstance(part, (list, tuple)):
        digest.update(f"sequence {len(part)} ".encode())
        for item in part:
            _feed(digest, item)
    elif isinstance(part, bytes):
        digest.update(f"bytes {len(part)} ".encode() + part)
    elif part is None or isinstance(part, (str, bool, int, float)):
        digest.update(f"{type(part).__name__} {part!r} ".encode())
    else:
        raise TypeError(
            f"a fingerprint cannot take a {type(part).__name__}: give tensors, arrays, mappings, "
            f"sequences, strings or numbers."
        )


def check_writable(path: str | os.PathLike) -> Path:
    """Return ``path`` if a file can be written there; ask this before hours of work.

    Parameters
    ----------
    path
        The file that will be written later.

    Returns
    -------
    Path
        The same path.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If ``path`` is a folder.
    PermissionError
        If the folder or the file cannot be written.
    """
    path = Path(path)
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(folder)!r} for {path.name!r}: create it, or name another."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file in it.")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise PermissionError(
            f"{str(path)!r} cannot be written: name a file in a folder where you may write."
        )
    return path


def atomic_write(path: str | os.PathLike, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never a half.

    Parameters
    ----------
    path
        The file to write; its folder must exist.
    data
        The whole content.

    Raises
    ------
    OSError
        If the folder is missing or not writable, or the disk is full; what was at ``path`` stays.
    """
    path = Path(os.path.realpath(check_writable(path)))  # a link stays, and what it names is new
    handle, temporary = -1, ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException as problem:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(problem, OSError) and problem.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):
            raise OSError(
                problem.errno,
                f"the disk is full: {path.name!r} was not written and what was there before is "
                f"untouched; free {len(data) / 2**20:.1f} MiB or name another folder",
            ) from problem
        raise


def _mode(path: Path) -> int:
    """Return the rights of the file that is replaced, or those of any new one."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def npz_bytes(arrays: Mapping[str, np.ndarray], meta: Mapping[str, object]) -> bytes:
    """Return the bytes of a compressed npz file with ``arrays`` and, as JSON, ``meta``.

    Parameters
    ----------
    arrays
        Name to array; object arrays are not allowed.
    meta
        Anything JSON can hold; stored under the name ``meta``.

    Returns
    -------
    bytes
        To be written with :func:`atomic_write` and read with :func:`read_npz`.
    """
    text = np.frombuffer(json.dumps(meta, allow_nan=True).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays, meta=text)
    return stream.getvalue()


def read_npz(path: str | os.PathLike, kind: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the arrays and the ``meta`` of a file that :func:`npz_bytes` made.

    Parameters
    ----------
    path
        The file.
    kind
        What it should hold, for example ``"surface"``: compared with ``meta["kind"]``.

    Returns
    -------
    tuple
        ``(arrays, meta)``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is cut off, damaged, a pickle, or not one of the kit's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file {str(path)!r}: check the name, or make it first."
        )
    try:
        arrays, meta = _read(path)
    except DAMAGE as problem:
        raise ValueError(
            f"{path.name!r} is not a {kind} of lossviz, or it is damaged: give a file that "
            f"lossviz saved, or make it again."
        ) from problem
    if meta.get("kind") != kind:
        raise ValueError(
            f"{path.name!r} holds a {meta.get('kind', 'file of another kind')}, not a {kind}: "
            f"give a file that was saved as a {kind}."
        )
    return arrays, meta


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    _refuse_bomb(path)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    meta = json.loads(arrays.pop("meta").tobytes().decode())
    return arrays, {**meta}  # TypeError, where it is no mapping


def _refuse_bomb(path: Path) -> None:
    """Refuse a small file that would unpack to fill the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    least, ratio = BOMB
    if unpacked > max(least, ratio * path.stat().st_size):
        raise ValueError("unpacks to far more than it holds")

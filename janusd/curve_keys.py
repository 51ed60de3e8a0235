"""Pairs of CURVE keys in files: made, and read if nobody else can read the secret one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zmq.auth import create_certificates, load_certificate


class KeyFileError(Exception):
    """A file of keys cannot be used, and why. is_open: it could, by too many."""

    def __init__(self, text: str, *, is_open: bool = False) -> None:
        super().__init__(text)
        self.is_open = is_open


def write_keys(name: str, directory: str) -> None:
    """NAME.key and NAME.key_secret, this for its owner alone."""
    mask = os.umask(0o077)
    try:
        create_certificates(directory, name)
    finally:
        os.umask(mask)


def load_keys(path: Path) -> tuple[bytes, bytes]:
    """The public and the secret key."""
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            text = f"{path}: others may read it (mode {stat.S_IMODE(mode):04o}): chmod 600"
            raise KeyFileError(text, is_open=True)
        public, secret = load_certificate(path)
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: no key: {error}: janus-gateway --make-key makes one") from None
    if secret is None:
        raise KeyFileError(f"{path}: has no secret key in it")
    return public, secret


def load_public_key(path: Path) -> bytes:
    """The public key of a file that everybody may read."""
    try:
        return load_certificate(path)[0]
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path}: no public key: {error}") from None

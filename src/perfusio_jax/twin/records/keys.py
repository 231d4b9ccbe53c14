"""Signing keys of the audit trail: Ed25519, in a file that only its owner may read.

A private key is PEM (PKCS 8) with mode 0600; its public half lies beside it as `NAME.pub`, to
be kept where the host that signs cannot reach it. A passphrase, if there is one, comes from
the environment variable `PERFUSIO_AUDIT_KEY_PASSPHRASE` and is written nowhere.
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perfusio_jax._core import ConfigError
from perfusio_jax._core.limits import KEY_BYTES, read_file

from .files import sync_folder

PASSPHRASE_VARIABLE: Final = "PERFUSIO_AUDIT_KEY_PASSPHRASE"
"""Environment variable with the passphrase of the private key; absent: none."""

_PURPOSE: Final = b"perfusio-jax audit head\n"
"""Put before what is signed, so that a signature serves no other purpose."""


@dataclass(frozen=True)
class Signer:
    """A private key, ready to sign; shows only its public half."""

    public_key: str
    """Public half, 32 bytes in hexadecimal."""
    _private: Any = field(repr=False, compare=False)

    @property
    def key_id(self) -> str:
        """Short name of the key."""
        return key_id(self.public_key)

    def sign(self, content: bytes) -> str:
        """Signature of a head's bytes, in hexadecimal."""
        return self._private.sign(_PURPOSE + content).hex()


def key_id(public_key: str) -> str:
    """Short name of a public key: the first 16 digits of the SHA-256 of its digits."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:16]


def is_signed_by(public_key: str, content: bytes, signature: str) -> bool:
    """Whether a signature is that of a key over a head's bytes.

    Args:
        public_key: 32 bytes in hexadecimal.
        content: What was signed.
        signature: 64 bytes in hexadecimal.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _PURPOSE + content)
    except (ValueError, InvalidSignature):
        return False
    return True


def generate_key(path: Path | str) -> Signer:
    """Make a key pair: `path` (mode 0600) and `path` with `.pub` appended.

    Args:
        path: File of the private key; must not be there yet.

    Returns:
        The signer.

    Raises:
        ConfigError: If a file is there already, or the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    path = Path(path)
    public = path.with_name(path.name + ".pub")
    private = Ed25519PrivateKey.generate()
    phrase = os.environ.get(PASSPHRASE_VARIABLE, "")
    lock = BestAvailableEncryption(phrase.encode()) if phrase else NoEncryption()
    signer = _signer(private)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    for file, content, mode in (
        (path, pem, 0o600),
        (public, f"{signer.public_key}\n".encode(), 0o644),
    ):
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise ConfigError(
                f"{file} is there already; a key is never replaced. Name another file."
            ) from None
        except OSError as error:
            raise ConfigError(f"The key {file} cannot be written: {error.strerror}.") from None
        with os.fdopen(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
    sync_folder(path.parent)
    return signer


def load_key(path: Path | str) -> Signer:
    """Read a private key, if nobody else could have.

    Args:
        path: PEM file made by `generate_key`.

    Returns:
        The signer.

    Raises:
        ConfigError: If it is not there, belongs to another user, can be read by others, needs
            another passphrase, or is no Ed25519 key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = Path(path)
    try:
        # A pipe nobody writes to would be waited for when it is opened.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, os.O_RDONLY | flags)
    except (OSError, ValueError) as error:  # a name no file can have is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"The signing key {path} cannot be opened ({why}); perfusio-jax keygen "
            "makes one, and a link is not followed."
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ConfigError(f"The signing key {path} is not a file.")
    with os.fdopen(descriptor, "rb") as file:
        if os.name == "posix" and status.st_mode & 0o077:
            raise ConfigError(
                f"The signing key {path} has mode {stat.S_IMODE(status.st_mode):04o}; others may "
                "read it. Allowed is 0600: chmod 600 it, or make a new one if it was exposed."
            )
        if os.name == "posix" and status.st_uid != os.geteuid():
            raise ConfigError(f"The signing key {path} belongs to another user.")
        pem = file.read(KEY_BYTES)
    phrase = os.environ.get(PASSPHRASE_VARIABLE, "")
    try:
        private = load_pem_private_key(pem, phrase.encode() if phrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            f"The signing key {path} cannot be read: it is no PEM key, or the passphrase in "
            f"{PASSPHRASE_VARIABLE} does not fit it."
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"The signing key {path} is not an Ed25519 key.")
    return _signer(private)


def load_public_key(path: Path | str) -> str:
    """Read a public key: 64 hexadecimal digits.

    Args:
        path: The `.pub` file that `generate_key` makes.

    Returns:
        The digits, in lower case.

    Raises:
        ConfigError: If it is not there or is none.
    """
    if not Path(path).is_file():
        raise ConfigError(f"there is no key file {path}.")
    try:
        raw = bytes.fromhex(read_file(path, most=KEY_BYTES).decode("ascii").strip())
    except (OSError, ValueError):
        raise ConfigError(f"{path} holds no public key, 64 hexadecimal digits.") from None
    if len(raw) != 32:
        raise ConfigError(f"{path} holds {len(raw)} bytes; a public key has 32.")
    return raw.hex()


def _signer(private: Any) -> Signer:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Signer(raw.hex(), private)

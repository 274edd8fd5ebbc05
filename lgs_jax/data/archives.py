"""Files inside zip archives, read where they are: nothing is ever unpacked to disk."""

import dataclasses
import functools
import os
import zipfile

from etils import epath

from lgs_jax import files
from lgs_jax.data import places
from lgs_jax.data.report import DataError

# A member that would be larger in memory is refused: no photograph or camera file is.
MAX_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class ZipPath:
    """A file or folder in an archive, with those methods of `pathlib.Path` that readers use.

    It is an `images.Embedded`, too.
    """

    archive: str
    inner: str = ""

    def __str__(self) -> str:
        return f"{self.archive}/{self.inner}"

    def __truediv__(self, name: str) -> "ZipPath":
        return ZipPath(self.archive, f"{self.inner}/{name}" if self.inner else name)

    @property
    def name(self) -> str:
        """The last part."""
        return self.inner.rpartition("/")[2]

    def is_file(self) -> bool:
        """Whether the archive has such a file."""
        return self.inner in _names(self.archive)[0]

    def is_dir(self) -> bool:
        """Whether the archive has such a folder."""
        return self.inner in _names(self.archive)[1]

    exists = is_file

    def iterdir(self) -> list["ZipPath"]:
        """What lies directly in the folder; nothing if there is none."""
        prefix = f"{self.inner}/" if self.inner else ""
        inside = [n[len(prefix) :] for n in _names(self.archive)[0] if n.startswith(prefix)]
        return [self / name for name in sorted({n.partition("/")[0] for n in inside})]

    def read_bytes(self) -> bytes:
        """The file, uncompressed.

        Raises:
          FileNotFoundError: if there is none.
          DataError: if it is damaged, encrypted, or larger than `MAX_BYTES`.
        """
        try:
            archive = _open(self.archive, os.getpid())
            info = archive.getinfo(self.inner)
            if info.file_size > MAX_BYTES:
                raise DataError(
                    f"{self} would take {info.file_size} bytes in memory, more than the "
                    f"{MAX_BYTES} that a file of the data may; it is no part of the data set"
                )
            return archive.read(info)
        except KeyError as error:
            raise FileNotFoundError(f"there is no {self}") from error
        except DataError:
            raise
        except files.BROKEN as error:
            raise DataError(
                f"{self} cannot be read ({error}); download the archive again"
            ) from error

    read = read_bytes


AnyPath = epath.Path | ZipPath


def folders(archive: str) -> frozenset[str]:
    """Names of all folders of an archive, also of empty ones that it lists.

    Raises:
      DataError: if it is no zip archive.
    """
    return _names(archive)[1]


# A process that was forked must not share the position in the file, so it opens its own.
@functools.lru_cache(64)
def _open(path: str, _process: int) -> zipfile.ZipFile:
    try:
        remote = places.is_remote(path)
        return zipfile.ZipFile(places.place(path).open("rb") if remote else path)
    except files.BROKEN as error:
        raise DataError(
            f"{path} is no zip archive that can be read ({error}); download it again"
        ) from error


@functools.lru_cache(64)
def _names(path: str) -> tuple[frozenset[str], frozenset[str]]:
    """Files and folders."""
    names = _open(path, os.getpid()).namelist()
    found = {""}
    for name in names:
        while name := name.rpartition("/")[0]:
            if name in found:
                break
            found.add(name)
    return frozenset(name for name in names if not name.endswith("/")), frozenset(found)

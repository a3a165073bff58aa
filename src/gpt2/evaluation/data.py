"""The evaluation sets' files: which are there, and fetching those that have a stable public address."""

import os
import shutil
import tarfile
import zipfile
from typing import cast

from gpt2.evaluation.tasks.task import Source, Task
from gpt2.system.download import DownloadError, digest, download
from gpt2.system.files import whole_file


def missing_files(task: Task, data_dir: str) -> list[str]:
    """Names of the files that a task lacks."""
    return [name for name in task.files if not os.path.isfile(os.path.join(data_dir, name))]


def fetch(source: Source, path: str) -> None:
    """Make path the file that source describes. An archive is kept beside it. Raises DownloadError."""
    url = cast(str, source.url)  # a source without one is not to be fetched
    if not source.member:
        download(url, path, sha256=source.sha256)
        return
    archive = os.path.join(os.path.dirname(path), os.path.basename(url))
    download(url, archive, sha256=source.sha256)
    try:
        extract(archive, source.member, path)
    except (KeyError, OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DownloadError(f'{archive} holds no readable {source.member} ({error}); delete it and try again') from None


def extract(archive: str, member: str, path: str) -> None:
    """Write one member of a .zip or a compressed tar file to path."""
    if archive.endswith('.zip'):
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as file, whole_file(path, 'wb') as out:
            shutil.copyfileobj(file, out)
    else:
        with tarfile.open(archive) as packed, whole_file(path, 'wb') as out:
            if (found := packed.extractfile(member)) is None:
                raise KeyError(f'{member} is no file')
            shutil.copyfileobj(found, out)


def digests(task: Task, data_dir: str) -> dict[str, str]:
    """SHA-256 of each file of a task."""
    return {name: digest(os.path.join(data_dir, name), 'sha256').hex() for name in task.files}

"""Files that are written whole or not at all."""

import os

import pytest

from gpt2.system.files import (
    WriteError,
    check_file,
    check_output,
    make_folder,
    new_folder,
    open_small,
    read_small,
    whole_file,
)


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / 'file'
    path.write_text('before')
    with whole_file(str(path)) as file:
        file.write('après')
        file.flush()
        assert path.read_text() == 'before'
    assert path.read_bytes() == 'après'.encode()
    assert os.listdir(tmp_path) == ['file']


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / 'file'
    path.write_text('before')
    with pytest.raises(ZeroDivisionError), whole_file(str(path), 'wb') as file:
        file.write(b'half')
        1 / 0  # noqa: B018
    assert path.read_text() == 'before'
    assert os.listdir(tmp_path) == ['file']


def test_a_file_that_is_called_as_one_being_written_is_nobody_else_s(tmp_path):
    path = tmp_path / 'file'
    for name in ('file.part', 'file.2.part'):
        (tmp_path / name).write_text('of a browser')
    with whole_file(str(path), 'w+b') as file:
        file.write(b'mine')
    with pytest.raises(ZeroDivisionError), whole_file(str(path)) as file:
        1 / 0  # noqa: B018
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {
        'file': 'mine', 'file.part': 'of a browser', 'file.2.part': 'of a browser'
    }  # fmt: skip


def test_what_cannot_be_written_is_said_with_the_remedy(tmp_path):
    (tmp_path / 'file').touch()
    path = str(tmp_path / 'file' / 'below')
    message = r'file/below cannot be written \(Not a directory\); go elsewhere$'
    with pytest.raises(WriteError, match=message), whole_file(path, remedy='go elsewhere'):
        pass
    with pytest.raises(WriteError, match=r'below cannot be made \(Not a directory\); go elsewhere$'):
        make_folder(path, 'go elsewhere')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs a pipe with a name')
def test_folders_and_devices_stay_what_they_are(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'folder').mkdir()
    for name, why in (('pipe', 'it is no regular file'), ('folder', 'Is a directory')):
        message = rf'{name} cannot be written \({why}\); go elsewhere$'
        with pytest.raises(WriteError, match=message), whole_file(str(tmp_path / name), remedy='go elsewhere'):
            pass
        with pytest.raises(WriteError, match=message):
            check_output(str(tmp_path / name), 'go elsewhere')
    assert sorted(os.listdir(tmp_path)) == ['folder', 'pipe']


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
    check_output(str(tmp_path / 'file'), 'go elsewhere')
    with pytest.raises(WriteError, match=r'there is no folder .*/none\); go elsewhere$'):
        check_output(str(tmp_path / 'none' / 'file'), 'go elsewhere')
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write anywhere
    with pytest.raises(WriteError, match=r'Permission denied\); go elsewhere$'):
        check_output(str(tmp_path / 'file'), 'go elsewhere')
    assert not os.listdir(tmp_path)


def test_a_readers_error_in_the_context_is_not_taken_for_one_of_writing(tmp_path):
    with pytest.raises(OSError, match='CRC'), whole_file(str(tmp_path / 'file')):
        raise OSError('CRC check failed')  # as gzip raises it: without an error number


def test_a_new_folder_goes_with_an_error_unless_something_is_in_it(tmp_path):
    (tmp_path / 'there').mkdir()
    inner = tmp_path / 'there' / 'a' / 'b'
    with pytest.raises(ZeroDivisionError), new_folder(str(inner), 'go elsewhere'):
        1 / 0  # noqa: B018
    assert os.listdir(tmp_path) == ['there'] and not os.listdir(tmp_path / 'there')
    with pytest.raises(ZeroDivisionError), new_folder(str(inner), 'go elsewhere'):
        (inner / 'file').touch()
        1 / 0  # noqa: B018
    assert (inner / 'file').exists()
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ZeroDivisionError), new_folder(str(tmp_path / 'empty'), 'go elsewhere'):
        1 / 0  # noqa: B018
    assert (tmp_path / 'empty').exists()


def test_a_new_folder_stays_when_all_is_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with new_folder('a/b/', 'go elsewhere'):
        pass
    assert (tmp_path / 'a' / 'b').is_dir()


# Small files


def test_a_small_file_is_read_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    path.write_bytes(b'a\r\nb')
    assert read_small(str(path)) == b'a\r\nb'
    assert open_small(str(path)).read() == 'a\nb'
    monkeypatch.setattr('gpt2.system.files.LARGEST_SMALL', 3)
    with pytest.raises(OSError, match=r'^it is longer than 3 bytes$'):
        read_small(str(path))


@pytest.mark.skipif(os.name != 'posix', reason='pipes with names')
def test_what_never_ends_is_not_begun(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    os.symlink('/dev/zero', tmp_path / 'zero')
    for name in ('pipe', 'zero'):
        with pytest.raises(OSError, match=r'^it is no regular file$'):
            read_small(str(tmp_path / name))
    with pytest.raises(IsADirectoryError):
        read_small(str(tmp_path))


def test_a_pointer_of_git_lfs_is_called_so(tmp_path):
    (tmp_path / 'file').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n')
    with pytest.raises(OSError, match=r'pointer of git-lfs; `git lfs pull`'):
        check_file(str(tmp_path / 'file'))

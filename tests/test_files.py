"""Writing files whole or not at all, and checking beforehand that it will work."""

import csv
import os
from pathlib import Path

import pytest

from eql_d2.errors import UserError
from eql_d2.files import (
    atomic_path,
    atomic_text_file,
    check_output_file,
    check_output_folder,
    csv_text,
    read_csv_text,
    safe_stem,
    terminal_text,
    write_bytes,
    write_json,
)


def test_an_atomic_file_appears_whole_and_an_error_keeps_the_old_one(tmp_path):
    path = tmp_path / "new" / "b.txt"
    with atomic_text_file(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    with pytest.raises(TypeError), atomic_text_file(path) as file:
        file.writelines(["other", 5])
    assert path.read_text("utf-8") == "ä\n"
    assert list(path.parent.iterdir()) == [path]


def test_an_atomic_path_has_the_ending_that_writers_look_at(tmp_path):
    with atomic_path(tmp_path / "a.b.png") as partial:
        assert partial.suffix == ".png"
        assert partial.parent == tmp_path
        partial.write_bytes(b"x")
    assert os.listdir(tmp_path) == ["a.b.png"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_text_file(tmp_path / "link.txt") as file:
        file.write("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_what_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.txt", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot be written"), atomic_text_file(path) as file:
            file.write("text")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_errors_of_the_block_are_not_taken_for_errors_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_text_file(tmp_path / "a.txt"):
        (tmp_path / "another").read_text()
    assert os.listdir(tmp_path) == []


def test_an_output_folder_is_checked_without_a_trace(tmp_path):
    for folder in (tmp_path, tmp_path / "a" / "b"):
        assert check_output_folder(str(folder), "--output") == folder
    assert os.listdir(tmp_path) == []


def test_an_output_folder_that_cannot_be_used_is_named_with_its_flag(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "a" / "b"):
        with pytest.raises(UserError, match=rf"--output {folder}: .*file is a file; give a folder"):
            check_output_folder(folder, "--output")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"--output .*link cannot be written to: No such file"):
        check_output_folder(tmp_path / "link", "--output")

    def denied(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(UserError, match=r"--output .* cannot be written to: Permission denied"):
        check_output_folder(tmp_path / "new", "--output")


@pytest.mark.parametrize("length", [500, 500_000], ids=["fails when closed", "fails on the way"])
def test_a_disk_that_fills_up_is_named_and_nothing_half_is_left(tmp_path, full_disk, length):
    path = tmp_path / "a.txt"
    path.write_text("old")
    writers = (write_text, write_bytes, lambda path, content: write_json(path, content.decode()))
    for write in writers:
        with full_disk(100), pytest.raises(UserError, match="cannot be written: File too large"):
            write(path, b"x" * length)
        with full_disk(100), pytest.raises(UserError, match=r"removed.* as it was; make room, or"):
            write(path, b"x" * length)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.txt"]
        write(path, b"x")
        assert "x" in path.read_text()
        path.write_text("old")


def write_text(path, content):
    with atomic_text_file(path) as file:
        file.write(content.decode())


def test_devices_are_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_json(pipe, [1])
        assert os.read(reader, 100) == b"[\n  1\n]\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="/dev/full is Linux's")
def test_a_device_without_room(tmp_path):
    (tmp_path / "link").symlink_to("/dev/full")
    for write in (write_text, write_bytes):
        with pytest.raises(UserError, match=r"link cannot be written: No space left on device$"):
            write(tmp_path / "link", b"x" * 500)
    assert Path("/dev/full").is_char_device()


def test_an_output_file_is_checked_without_a_trace(tmp_path):
    (tmp_path / "there.json").write_text("old")
    for name in ("there.json", "new.json", "a/b/new.json"):
        assert check_output_file(str(tmp_path / name), "--json") == tmp_path / name
    assert check_output_file("/dev/null", "--json") == Path("/dev/null")
    assert os.listdir(tmp_path) == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "old"


def test_an_output_file_that_cannot_be_used_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in {
        tmp_path: r"^--json .* is a folder; give the name of a file$",
        tmp_path / "file" / "a.json": r"^--json .*a\.json: .*file is a file; give a folder$",
        "/proc/new/a.json": r"^--json /proc/new/a.json cannot be written to: ",
        tmp_path / "loop" / "a.json": r"a.json cannot be written to: Too many levels",
        tmp_path / "link": r"link is read, and would be overwritten; choose another output$",
    }.items():
        with pytest.raises(UserError, match=message):
            check_output_file(path, "--json", tmp_path / "loop", tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straßenlaterne_(größer) 猫 кот हिन्दी 👩\u200d🚒", None),
        ("\x1b[2Jgone\x07", r"\x1b[2Jgone\x07"),
        ("a\nerror: forged\r\x85", r"a\nerror: forged\r\x85"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("\u2028\ud800\U000e0041\x00", r"\u2028\ud800\U000e0041\x00"),
    ],
)
def test_terminals_get_no_commands(text, shown):
    assert terminal_text(text) == (text if shown is None else shown)
    own = terminal_text(f"two\tlines:\n{text}", keep_lines=True)
    assert own.startswith("two\tlines:\n")
    assert "\x1b" not in own
    assert "\u202e" not in own


NAMES = ["=1+1", "+49", "-s3", "@x", "'=1", "''-", "'tis", "it's", "a=b", "", "\uff1d1", "cup", "5"]


def test_spreadsheets_get_no_formulas_and_our_readers_the_names(tmp_path):
    """Through the csv module, since quotes and line ends count."""
    hostile = [*NAMES, "\t=1", "\r=cmd", "a\r\n=1", "\x00", 'quote",=1']
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([csv_text(name), 1] for name in hostile)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert [len(row) for row in rows] == [2] * len(hostile)
    assert not [cell for cell, _ in rows if cell.startswith(tuple("=+-@\t\r\n\uff1d"))]
    assert [read_csv_text(cell) for cell, _ in rows] == list(map(terminal_text, hostile))
    assert [read_csv_text(csv_text(name)) for name in NAMES] == NAMES
    assert csv_text("cup") == "cup"


def test_half_a_pair_of_utf16_does_not_end_the_writing(tmp_path):
    with atomic_text_file(tmp_path / "a.txt") as file:
        file.write("\ud800ä")
    assert (tmp_path / "a.txt").read_text("utf-8") == "\\ud800ä"


@pytest.mark.parametrize("name", ["../../a b.png", "a\n\x00.png", "x" * 5000, "字" * 83, "..", "/"])
def test_names_of_outputs_stay_in_their_folder(name):
    stem = safe_stem(name)
    assert len(f"7_{stem}.png".encode()) < 120
    assert Path("out", f"7_{stem}.png").resolve().parent == Path("out").resolve()

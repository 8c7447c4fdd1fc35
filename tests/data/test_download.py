import hashlib
import io
import subprocess
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.download import Archive, download, git_tree_hash, install, unpack

FILES = {"top/data/a.txt": b"alpha", "top/data/b/c.txt": b"beta", "top/other.txt": b"gamma"}


def tar(path, files=FILES, extra=()):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
        for entry in extra:
            packed.addfile(entry)
    return path


def zipped(path, files=FILES, extra=()):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
        for entry in extra:
            packed.writestr(entry, "target")
    return path


def sha(path):
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def held(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


CONTENT = {"a.txt": b"alpha", "b/c.txt": b"beta"}


def archive(path, checksum=None, **changes):
    values = {"inside": "top/data", "to": "set", "holds": ("a.txt", "b")} | changes
    return Archive(path.as_uri(), checksum or sha(path), **values)


@pytest.mark.parametrize(("make", "name"), [(tar, "x.tgz"), (zipped, "x.zip")])
def test_install(tmp_path, make, name):
    wanted = archive(make(tmp_path / name))
    out = tmp_path / "out"
    assert not wanted.is_unpacked(out)
    seen = []
    install(wanted, out, progress=lambda done, total: seen.append((done, total)))
    assert wanted.is_unpacked(out)
    assert held(out) == {f"set/{path}": content for path, content in CONTENT.items()}
    size = (tmp_path / name).stat().st_size
    assert seen[-1] == (size, size)


def test_another_source(tmp_path):
    path = tar(tmp_path / "x.tgz")
    wanted = Archive("https://example.invalid/far/x.tgz", sha(path), "top", "", ("data",))
    install(wanted, tmp_path / "out", source=tmp_path.as_uri() + "/")
    assert (tmp_path / "out" / "data" / "a.txt").read_bytes() == b"alpha"


def test_another_checksum_is_refused_and_nothing_stays(tmp_path):
    path = tar(tmp_path / "x.tgz")
    for checksum in ("sha256:" + "0" * 64, "md5:" + "0" * 32, "git:" + "0" * 40):
        with pytest.raises(DataError, match="another checksum"):
            install(archive(path, checksum), tmp_path / "out")
        assert held(tmp_path / "out") == {}
    install(archive(path, "md5:" + hashlib.md5(path.read_bytes()).hexdigest()), tmp_path / "out")


def test_an_archive_that_lacks_its_content(tmp_path):
    with pytest.raises(DataError, match="lacks zebra"):
        install(archive(tar(tmp_path / "x.tgz"), holds=("a.txt", "zebra")), tmp_path / "out")


def test_files_in_the_way_stay(tmp_path):
    (tmp_path / "out" / "set").mkdir(parents=True)
    (tmp_path / "out" / "set" / "b").write_text("mine")
    with pytest.raises(DataError, match="in the way: b"):
        install(archive(tar(tmp_path / "x.tgz")), tmp_path / "out")
    assert held(tmp_path / "out" / "set") == {"b": b"mine"}


UNSAFE = ["../evil", "top/../../evil", "/tmp/evil", "top/data/../../../evil", "C:evil", "..\\evil"]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("make", [tar, zipped])
def test_names_that_lead_outside_are_refused(tmp_path, make, name):
    path = make(tmp_path / "x", {**FILES, name: b"evil"})
    (tmp_path / "deep" / "out").mkdir(parents=True)
    before = held(tmp_path)
    with pytest.raises(DataError, match="not safe"):
        unpack(path, tmp_path / "deep" / "out")
    assert held(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_files_are_refused(tmp_path, kind):
    entry = tarfile.TarInfo("top/link")
    entry.type, entry.linkname = kind, "/etc"
    with pytest.raises(DataError, match="link or a device"):
        unpack(tar(tmp_path / "x.tgz", extra=[entry]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_zip_files_are_refused(tmp_path):
    entry = zipfile.ZipInfo("top/link")
    entry.external_attr = 0o120777 << 16
    with pytest.raises(DataError, match="link"):
        unpack(zipped(tmp_path / "x.zip", extra=[entry]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tar, zipped])
def test_damaged_archives(tmp_path, make):
    path = make(tmp_path / "x", {"top/a": bytes(range(256)) * 400})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out")


class Handler(SimpleHTTPRequestHandler):
    """Serves files; answers ranges, and cuts the first answer when asked to."""

    cut = 0
    asked = ()

    def do_GET(self):
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range")
        type(self).asked += (wanted,)
        start = int(wanted.removeprefix("bytes=")[:-1]) if wanted else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        sent = data[start:]
        if type(self).cut:
            sent, type(self).cut = sent[: type(self).cut], 0
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "f.bin").write_bytes(bytes(range(256)) * 40)
    handler = type("Fresh", (Handler,), {"asked": (), "cut": 0})
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=tmp_path / "served")
    ) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield handler, f"http://127.0.0.1:{running.server_port}/f.bin", tmp_path / "served/f.bin"
        running.shutdown()
        thread.join()


def test_an_interrupted_download_goes_on(server, tmp_path):
    handler, url, original = server
    handler.cut = 1000
    target = tmp_path / "got" / "f.bin"
    with pytest.raises(DataError, match="ended after 1000 of 10240 bytes"):
        download(url, target, checksum=sha(original))
    assert not target.exists()
    download(url, target, checksum=sha(original))
    assert target.read_bytes() == original.read_bytes()
    assert handler.asked == (None, "bytes=1000-")
    assert list(target.parent.iterdir()) == [target]


def test_a_part_that_is_already_whole(server, tmp_path):
    _, url, original = server
    target = tmp_path / "f.bin"
    (tmp_path / "f.bin.part").write_bytes(original.read_bytes())
    download(url, target, checksum=sha(original))
    assert target.read_bytes() == original.read_bytes()


def test_a_wrong_part_is_removed(server, tmp_path):
    _, url, original = server
    target = tmp_path / "f.bin"
    (tmp_path / "f.bin.part").write_bytes(b"x" * 500)
    with pytest.raises(DataError, match="another checksum"):
        download(url, target, checksum=sha(original))
    assert not (tmp_path / "f.bin.part").exists()
    download(url, target, checksum=sha(original))


def test_a_server_without_ranges(tmp_path, server):
    _, _, original = server
    (tmp_path / "f.bin.part").write_bytes(b"old")
    download(original.as_uri(), tmp_path / "f.bin", checksum=sha(original))
    assert (tmp_path / "f.bin").read_bytes() == original.read_bytes()


def test_no_connection_and_other_schemes(tmp_path):
    with pytest.raises(DataError, match="cannot download"):
        download((tmp_path / "none").as_uri(), tmp_path / "f")
    with pytest.raises(DataError, match="only http"):
        download("ftp://example.invalid/f", tmp_path / "f")


def test_the_hash_of_a_folder_is_gits(tmp_path):
    for path, content in {"b.txt": b"1", "b/x": b"2", "b0": b"3", "a/y/z": bytes(300)}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    mine = git_tree_hash(tmp_path)

    def git(*words):
        done = subprocess.run(["git", *words], cwd=tmp_path, capture_output=True, check=False)
        return done.stdout.decode().strip()

    git("init", "-q")
    git("-c", "core.autocrlf=false", "add", "--", "a", "b", "b.txt", "b0")
    theirs = git("write-tree")
    if not theirs:
        pytest.skip("no git here")
    assert mine == theirs


def test_a_git_archive(tmp_path):
    content = tmp_path / "content"
    for path, data in CONTENT.items():
        (content / path).parent.mkdir(parents=True, exist_ok=True)
        (content / path).write_bytes(data)
    wanted = archive(zipped(tmp_path / "x.zip"), "git:" + git_tree_hash(content), to="")
    install(wanted, tmp_path / "out")
    assert held(tmp_path / "out") == CONTENT

"""Published files: found, downloaded, refused."""

import errno
import gzip
import hashlib
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pooch
import pytest

from pyrovae.datasets._published import PublishedFile, locate
from pyrovae.datasets.readers.idx import read_idx
from tests.datasets.idx_files import CLASSES, idx, in_cache


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        what, _, name = self.path.strip("/").partition("/")
        content = self.server.contents.get(name)
        if what == "nothing" or content is None:
            self.send_error(404)
            return
        content = b"<html>please log in</html>" if what == "another" else content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if what == "half" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """A mirror on this machine, with folders of right files, other files, halves, and none."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.contents = {}
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def remote(server, monkeypatch, tmp_path):
    """A published file that is nowhere but on the mirrors asked for."""
    monkeypatch.delenv("PYROVAE_DATA", raising=False)
    monkeypatch.setenv("PYROVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    content = gzip.compress(idx(CLASSES), mtime=0)
    server.contents["labels.gz"] = content

    def make(*mirrors):
        addresses = tuple(f"http://127.0.0.1:{server.server_port}/{mirror}/" for mirror in mirrors)
        return PublishedFile("mnist", "labels.gz", hashlib.sha256(content).hexdigest(), addresses)

    return make


@pytest.mark.parametrize("mirrors", [["right"], ["nothing", "right"], ["another", "half", "right"]])
def test_download(remote, tmp_path, mirrors, monkeypatch, capsys):
    path = locate(remote(*mirrors))
    assert read_idx(path).tolist() == list(range(10))
    assert in_cache(tmp_path) == ["labels.gz"]
    assert locate(remote("nothing")) == path  # no second time
    assert capsys.readouterr().err == ""


def test_a_damaged_file_in_the_cache_is_downloaded_again(remote, tmp_path):
    path = locate(remote("right"))
    path.write_bytes(b"damaged")
    assert read_idx(locate(remote("right"))).tolist() == list(range(10))
    path.write_bytes(b"damaged")
    with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
        locate(remote("nothing"))
    assert in_cache(tmp_path) == []


def test_a_failed_download_is_one_line_and_leaves_nothing(remote, tmp_path):
    off_line = replace(remote(), mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(FileNotFoundError, match=r"127.0.0.1:9/: ConnectionError\); go online") as caught:
        locate(off_line)
    assert "\n" not in str(caught.value)
    assert "there is no file mnist/labels.gz: it is not in PYROVAE_DATA, which is not set" in str(caught.value)
    with pytest.raises(
        FileNotFoundError,
        match=r"nothing/: status 404; h.*/another/ has another file of that name; h.*/half/: ChunkedEncodingError",
    ):
        locate(remote("nothing", "another", "half"))
    assert in_cache(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(remote, tmp_path, monkeypatch):
    def interrupted(self, url, output_file, *_):
        with open(output_file, "wb") as file:
            file.write(b"half")
        assert len(in_cache(tmp_path)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        locate(remote("right"))
    assert in_cache(tmp_path) == []


def test_what_a_killed_process_left_is_removed(remote, tmp_path):
    folder = tmp_path / "cache" / "datasets" / "mnist"
    folder.mkdir(parents=True)
    for name, age in (("tmp-old", 7200), ("tmp-of-another-process", 1)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    locate(remote("right"))
    assert in_cache(tmp_path) == ["labels.gz", "tmp-of-another-process"]


def test_a_full_disk(remote, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))  # no file of this process may grow past 8 bytes
    try:
        with pytest.raises(OSError, match=r"cannot write labels.gz to the cache .*: File too large; name another"):
            locate(remote("right"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert in_cache(tmp_path) == []


def test_a_cache_that_cannot_be_written_to(remote, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"cannot write labels.gz to the cache .*; name another folder in PYROVAE_CACHE"):
        locate(remote("right"))
    assert (tmp_path / "cache").read_text() == "a file where the folder should be"
    (tmp_path / "cache").unlink()

    def read_only(*arguments, **options):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", read_only)
    with pytest.raises(OSError, match=r"labels.gz to the cache .*Read-only file system.*; name another folder"):
        locate(remote("right"))

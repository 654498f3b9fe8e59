"""MNIST's files, on disk and from mirrors: whole and as published, or a clear error."""

import contextlib
import gzip
import hashlib
import resource
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import datasets

import training.download
from export.bundle import open_bundle
from export.settings import read_settings
from tests.support.trainings import train
from training.config import TrainingSettings
from training.data import Data, load
from training.download import DownloadError, download
from training.errors import DatasetError
from training.originals import UNPACKED_MD5, Originals

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx_file(array: np.ndarray) -> bytes:
    """Return uint8 values in MNIST's file format."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_dataset(images: int = 24, classes: int = 10) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        f"{part}-{name}": array.astype(np.uint8)
        for part, count in (("train", images), ("t10k", 12))
        for name, array in (
            ("images-idx3-ubyte", random.integers(0, 256, (count, 28, 28))),
            ("labels-idx1-ubyte", np.arange(count) % classes),
        )
    }


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder of four .gz files, small ones."""
    folder = tmp_path / "the mirror"
    folder.mkdir()
    for name, array in small_dataset().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx_file(array)))
    return folder


@pytest.fixture
def originals(mirror: Path, tmp_path: Path) -> Originals:
    """Those files as if their MD5 sums were the published ones, in an empty folder."""
    return Originals(
        dataset="mnist",
        folder=tmp_path / "raw",
        resources=[
            (path.name, hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())
            for path in sorted(mirror.iterdir())
        ],
        mirrors=[mirror.as_uri()],
        check=True,
    )


def test_a_download_is_stored_unpacked_and_read(originals: Originals) -> None:
    expected = small_dataset()
    elsewhere = replace(originals, mirrors=["file:///nowhere"])
    for source in (originals, elsewhere):  # the second finds what the first has left
        for part in ("train", "t10k"):
            images, labels = source.read(part)
            np.testing.assert_array_equal(images, expected[f"{part}-images-idx3-ubyte"])
            np.testing.assert_array_equal(labels, expected[f"{part}-labels-idx1-ubyte"])
    names = {path.name for path in originals.folder.iterdir()}
    assert names == {*expected, *(f"{name}.gz" for name in expected)}


def test_mnist_is_read_as_torchvision_reads_it(mnist: Data) -> None:
    data_dir = read_settings(TrainingSettings, []).data_dir
    theirs = datasets.MNIST(data_dir, train=False, download=False)
    assert mnist.test.images.equal(theirs.data)
    assert mnist.test.labels.equal(theirs.targets)


def test_the_known_digests_match_the_published_files(mnist: Data) -> None:
    assert mnist.name == "mnist"
    raw = read_settings(TrainingSettings, []).data_dir / "MNIST" / "raw"
    for name, published in datasets.MNIST.resources:
        packed = (raw / name).read_bytes()
        assert hashlib.md5(packed, usedforsecurity=False).hexdigest() == published
        unpacked = hashlib.md5(gzip.decompress(packed), usedforsecurity=False).hexdigest()
        assert UNPACKED_MD5[published] == unpacked


def test_zeroed_labels_on_disk_are_refused(mnist: Data, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (read_settings(TrainingSettings, []).data_dir / "MNIST" / "raw").glob("*ubyte"):
        shutil.copy(path, raw)
    assert load("mnist", tmp_path, "file:///nowhere").sha256 == mnist.sha256, "it needs no .gz"
    labels = bytearray((raw / LABELS).read_bytes())
    labels[8:20_008] = bytes(20_000)
    (raw / LABELS).write_bytes(labels)
    with pytest.raises(DatasetError, match=f"{LABELS}: expected the published file, MD5 a25bea73"):
        load("mnist", tmp_path, None)
    assert load("mnist", tmp_path, None, check=False).sha256 != mnist.sha256


def cut(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut in the middle": cut(1000),
    "cut in the header": cut(10),
    "empty": cut(0),
    "first bytes overwritten": lambda path: path.write_bytes(b"\0\0\7\3" + path.read_bytes()[4:]),
    "a web page": lambda path: path.write_bytes(b"<!DOCTYPE html><html>blocked</html>"),
    "labels in place of images": lambda path: path.with_name(LABELS).replace(path),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_its_remedy(originals: Originals, damage: str) -> None:
    originals.read("train")
    path = originals.folder / IMAGES
    DAMAGES[damage](path)
    with pytest.raises(DatasetError) as refused:
        originals.read("train")
    for text in (str(path), "expected the published file", "Delete it", "--no-check-data"):
        assert text in str(refused.value)
    assert "--mirror" not in str(refused.value), "another mirror would not help"
    path.unlink()
    images, _ = replace(originals, mirrors=["file:///nowhere"]).read("train")
    np.testing.assert_array_equal(images, small_dataset()[IMAGES])


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a bit"])
def test_damage_is_found_in_own_data_too(originals: Originals, damage: str) -> None:
    originals.read("train")
    DAMAGES[damage](originals.folder / IMAGES)
    with pytest.raises(DatasetError, match=IMAGES):
        replace(originals, check=False).read("train")


@given(content=st.binary(max_size=200) | st.binary().map(lambda b: b"\0\0\x08\x03" + b))
def test_any_bytes_are_images_or_a_dataset_error(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / IMAGES).write_bytes(content)
    resources = [(f"{IMAGES}.gz", ""), (f"{LABELS}.gz", "")]
    (folder / LABELS).write_bytes(idx_file(np.zeros(12, np.uint8)))
    with pytest.raises(DatasetError):
        Originals("mnist", folder, resources, [], check=False).read("train")


def test_a_folder_named_as_a_file_is_an_error(originals: Originals) -> None:
    (originals.folder / IMAGES).mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"{IMAGES}: can't be read: Is a directory"):
        originals.read("train")


def test_a_cut_download_is_repeated(originals: Originals) -> None:
    originals.folder.mkdir()
    packed = originals.folder / f"{IMAGES}.gz"
    packed.write_bytes(b"\x1f\x8b half")
    with pytest.raises(DatasetError, match=f"the {IMAGES}.gz there is damaged"):
        replace(originals, mirrors=["file:///nowhere"]).read("train")
    originals.read("train")
    packed.write_bytes(packed.read_bytes()[:1000])
    (originals.folder / IMAGES).unlink()
    with pytest.raises(DatasetError, match=f"{IMAGES}.gz: can't be unpacked"):
        replace(originals, check=False).read("train")


def test_an_unpacked_file_needs_its_archive(originals: Originals) -> None:
    """Fashion-MNIST's: its unpacked files have no known digest."""
    originals.read("train")
    (originals.folder / f"{IMAGES}.gz").unlink()
    with pytest.raises(DatasetError, match=f"{IMAGES}: can't be checked: .*Put it there, or"):
        originals.read("train")
    replace(originals, check=False).read("train")


def test_a_full_disk_leaves_no_partial_file(originals: Originals) -> None:
    """The limit of a file's size stands in for the disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DatasetError, match=r"can't be written: File too large; --data-dir"):
            originals.read("train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert list(originals.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({IMAGES: np.zeros((24, 28, 27), np.uint8)}, r"expected images \[N, 28, 28\]"),
        ({IMAGES: np.zeros((3, 28, 28), np.uint8)}, "12 or more"),
        ({LABELS: np.zeros(23, np.uint8)}, "expected 24 labels .* got 23"),
        ({LABELS: np.full(24, 10, np.uint8)}, "labels from 0 to 9, .* up to 10"),
        ({LABELS: np.zeros(0, np.uint8)}, "expected 24 labels .* got 0"),
    ],
)
def test_own_data_have_the_form_of_mnist(
    originals: Originals, change: dict[str, np.ndarray], expected: str
) -> None:
    originals.folder.mkdir()
    for name, array in (small_dataset() | change).items():
        (originals.folder / name).write_bytes(idx_file(array))
    with pytest.raises(DatasetError, match=expected):
        replace(originals, check=False).read("train")


def test_own_data_are_accepted_without_the_check(mirror: Path, tmp_path: Path) -> None:
    arguments = ("--epochs", "1", "--hidden", "1", "--models-dir", tmp_path, "--data-dir", tmp_path)
    done = train(*arguments, "--mirror", mirror.as_uri(), "--no-check-data")
    assert done.returncode == 0, done.stderr
    assert "22 images to train, 2 held out, 12 to test; not checked" in done.stdout
    assert open_bundle(tmp_path / "mnist" / "1").manifest.dataset.test_images == 12


@contextlib.contextmanager
def answering(content: bytes) -> Iterator[str]:
    """Give the URL of a server that sends these bytes to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # it was closed
                    return
                with connection, contextlib.suppress(OSError):  # the client has heard enough
                    connection.recv(65536)
                    connection.sendall(content)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "breaks off": (OK + b"Content-Length: 999\r\n\r\nxy", "ended after 2 of 999 bytes"),
    "breaks off, chunked": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n999\r\nxy",
        "incomplete.*IncompleteRead",
    ),
    "a web page": (OK + b"\r\n<html>log in</html>", "got a web page, perhaps of a proxy"),
    "not there": (b"HTTP/1.1 404 Not Found\r\n\r\n", "404: Not Found"),
    "another protocol": (b"SSH-2.0-x\r\n", "not HTTP: BadStatusLine"),
    "no status": (b"HTTP/1.1 abc def\r\n\r\n", "not HTTP: BadStatusLine"),
    "nothing": (b"", "RemoteDisconnected|closed connection|reset"),
    "endless header": (OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n", "not HTTP: LineTooLong"),
    "redirected in a circle": (b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "infinite loop"),
    "redirected to nowhere": (b"HTTP/1.1 302 Found\r\nLocation: x://\r\n\r\n", "302"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_broken_mirror_is_named_with_the_reason(originals: Originals, answer: str) -> None:
    content, reason = ANSWERS[answer]
    with answering(content) as url, pytest.raises(DatasetError, match=reason) as failed:
        replace(originals, mirrors=[url]).read("train")
    for text in (f"{url}/{IMAGES}.gz: ", "--mirror URL", "--dataset digits"):
        assert text in str(failed.value)
    assert list(originals.folder.parent.glob("raw/*")) == []


@given(content=st.binary(max_size=300) | st.binary(max_size=300).map(lambda body: OK + body))
@settings(max_examples=60)
def test_any_response_is_a_file_or_download_error(content: bytes) -> None:
    with answering(content) as url, contextlib.suppress(DownloadError):
        assert download(f"{url}/x") in content


@pytest.mark.parametrize(
    "url", ["", "data/mnist", "ftp://h/x", "http://", "http://h:x/", "file://h/x"]
)
def test_an_invalid_url_is_a_download_error(url: str) -> None:
    with pytest.raises(DownloadError):
        download(url)


def test_a_silent_mirror_is_a_download_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.download, "SILENCE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DownloadError, match="timed out"):
            download(url)


def test_an_endless_download_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.download, "MAX_BYTES", 100)
    with (
        answering(OK + b"\r\n" + b"x" * 101) as url,
        pytest.raises(DownloadError, match="longer than 100 bytes"),
    ):
        download(url)


def test_the_next_mirror_is_tried(originals: Originals) -> None:
    with answering(OK + b"\r\nno gzip") as url:
        replace(originals, mirrors=[url, *originals.mirrors]).read("train")


@pytest.mark.parametrize("path", ["a b/ä", "a%20b/%C3%A4"])
def test_a_space_in_a_url_is_quoted(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked: list[bytes] = []

        def serve() -> None:
            with server.accept()[0] as connection:
                asked.append(connection.recv(65536))
                connection.sendall(OK + b"\r\nfound")

        thread = threading.Thread(target=serve)
        thread.start()
        assert download(f"http://127.0.0.1:{server.getsockname()[1]}/{path}") == b"found"
        thread.join()
    assert asked[0].startswith(b"GET /a%20b/%C3%A4 HTTP/1.1\r\n")


def test_a_space_in_a_mirror_url_works(originals: Originals, mirror: Path) -> None:
    assert " " in str(mirror)
    replace(originals, mirrors=[f"file://{mirror}"]).read("train")

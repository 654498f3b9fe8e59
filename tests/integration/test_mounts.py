"""Volumes of Kubernetes: files are links into `..data`, a link that is swapped in one step."""

import shutil
import ssl
from pathlib import Path

import pytest

from export.bundle import Bundle
from forward_client import ForwardClient, ForwardError
from tests.support.bundles import publish_random_bundle, random_images
from tests.support.certificates import Authority
from tests.support.checked_load import oracle
from tests.support.servers import RunningServer, metric, start_server, wait_until

ONE = random_images(1, (28, 28))


class Volume:
    """A folder as the kubelet makes it of a ConfigMap or Secret, and renews it."""

    def __init__(self, path: Path, files: dict[str, bytes]) -> None:
        path.mkdir(parents=True)
        self.path = path
        self._generation = 0
        self.renew(files)
        for name in files:
            (path / name).symlink_to(Path("..data") / name)

    def renew(self, files: dict[str, bytes]) -> None:
        """Write files beside the old, swap the link, remove the old."""
        self._generation += 1
        folder = self.path / f"..2026_11_25_20_00_00.{self._generation}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
            (folder / name).chmod(0o640)
        data_link = self.path / "..data"
        before = data_link.readlink() if data_link.is_symlink() else None
        beside = self.path / "..data_tmp"
        beside.symlink_to(folder.name)
        beside.rename(data_link)
        if before is not None:
            shutil.rmtree(self.path / before)


def taken(server: RunningServer, token: str) -> bool:
    with ForwardClient(server.address, timeout_seconds=30, token=token) as client:
        try:
            client.model()
        except ForwardError as error:
            if error.code == "UNAUTHENTICATED":
                return False
            raise
    return True


def test_tokens_follow_a_swap_of_their_volume(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "tokens", {"tokens": b"first-token"})
    with start_server("--token-file", str(volume.path / "tokens")) as server:
        assert taken(server, "first-token")
        volume.renew({"tokens": b"other-token"})
        wait_until(lambda: taken(server, "other-token"))
        assert not taken(server, "first-token")


def test_a_wrong_token_file_is_noticed_without_calls(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "tokens", {"tokens": b"first-token"})
    well = "forward_files_last_reload_successful"
    with start_server("--token-file", str(volume.path / "tokens")) as server:
        assert metric(server, well, files="tokens") == 1
        volume.renew({"tokens": b"no token"})
        wait_until(lambda: metric(server, well, files="tokens") == 0)
        lines = [line for line in server.log() if "not renewed" in line["event"]]
        assert len(lines) == 1
        assert "line 1 is no token" in lines[0]["reason"]
        assert taken(server, "first-token")
        volume.renew({"tokens": b"other-token"})
        wait_until(lambda: metric(server, well, files="tokens") == 1)
        assert taken(server, "other-token")


def test_certificates_follow_a_swap_of_their_volume(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")

    def pair() -> dict[str, bytes]:
        issued = authority.issue()
        return {"tls.crt": issued.certificate.read_bytes(), "tls.key": issued.key.read_bytes()}

    def quote(server: RunningServer) -> bytes:
        address = ("127.0.0.1", int(server.ready["grpc_port"]))
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address))

    def leaf(files: dict[str, bytes]) -> bytes:
        first, end, _ = files["tls.crt"].decode().partition("-----END CERTIFICATE-----")
        return ssl.PEM_cert_to_DER_cert(first + end)

    files = pair()
    volume = Volume(tmp_path / "tls", files)
    arguments = ("--tls-cert", str(volume.path / "tls.crt"), "--tls-key")
    with start_server(*arguments, str(volume.path / "tls.key")) as server:
        assert quote(server) == leaf(files)
        files = pair()
        volume.renew(files)
        wait_until(lambda: quote(server) == leaf(files))
        address = f"localhost:{server.ready['grpc_port']}"
        with ForwardClient(address, timeout_seconds=30, tls=authority.tls()) as client:
            assert client.predict(ONE).model_version == 1
        assert metric(server, "forward_files_last_reload_successful", files="tls") == 1


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.path.iterdir()}


@pytest.mark.parametrize("whole", [False, True], ids=["files of a version", "folder of models"])
def test_a_model_follows_a_swap_of_its_volume(tmp_path: Path, *, whole: bool) -> None:
    """Of a ConfigMap that is one version, or of git-sync's link to the folder of all."""
    first = publish_random_bundle(tmp_path / "first", "tiny")
    other = publish_random_bundle(tmp_path / "other", "tiny", hidden=(5,))
    volume = models = tmp_path / "models"
    if whole:
        models.symlink_to("first")
    else:
        volume = models / "tiny" / "1"
    mounted = None if whole else Volume(volume, contents(first))
    arguments = ("--models-dir", str(models), "--model", "tiny", "--reload-interval", "0.1")
    with (
        start_server(*arguments) as server,
        ForwardClient(server.address, timeout_seconds=30) as client,
    ):
        images = random_images(5, (3, 5))
        assert abs(client.predict(images).logits - oracle(first, images)).max() < 1e-5
        if mounted:
            mounted.renew(contents(other))
        else:
            (tmp_path / "beside").symlink_to("other")
            (tmp_path / "beside").rename(models)
        wait_until(lambda: abs(client.predict(images).logits - oracle(other, images)).max() < 1e-5)
        assert metric(server, "forward_model_last_reload_successful") == 1
        assert metric(server, "forward_model_reloads_total", result="failure") == 0

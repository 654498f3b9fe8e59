"""Where bundles are looked for: several folders, and that of one model alone."""

from pathlib import Path

import pytest

from export.bundle import find_bundle, folder_of, model_folders
from export.bundle.folders import first_that_exists
from export.errors import BundleError
from export.settings import read_settings
from server.config import ServerSettings
from tests.support.bundles import publish_random_bundle


def test_the_first_folder_that_exists_counts(tmp_path: Path) -> None:
    second, third = tmp_path / "second", tmp_path / "third"
    listed = Path(f"{tmp_path}/first:{second}:{third}")
    assert first_that_exists(listed) == third  # its absence is what the error names
    third.mkdir()
    assert first_that_exists(listed) == third
    second.mkdir()
    assert first_that_exists(listed) == second
    settings = read_settings(ServerSettings, ["--models-dir", str(listed)])
    assert settings.models_dir == second


def test_a_model_is_served_from_its_own_folder(tmp_path: Path) -> None:
    publish_random_bundle(tmp_path, "tiny")
    publish_random_bundle(tmp_path, "tiny")
    alone = tmp_path / "tiny"
    assert model_folders(alone, "tiny").versions == [1, 2]
    assert find_bundle(alone, "tiny", None).path == alone / "2"
    with pytest.raises(BundleError, match="is of 'tiny' version 2"):
        find_bundle(alone, "other", None)


def test_the_folder_of_the_name_comes_first(tmp_path: Path) -> None:
    """Also where the repository has a model whose name is a number."""
    (tmp_path / "7").mkdir()
    publish_random_bundle(tmp_path, "tiny")
    assert folder_of(tmp_path, "tiny") == tmp_path / "tiny"
    assert folder_of(tmp_path / "none", "tiny") == tmp_path / "none" / "tiny"

"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, from FEWSHOT_DATA or beside the project."""
    folder = Path(os.environ.get("FEWSHOT_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets: {folder} is not there (set FEWSHOT_DATA)")
    return folder

"""What tests of several rooms ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.browser import Reader


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A browser of the module's own."""
    from support.browser import Reader  # skips where there is no selenium

    browser = Reader(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()

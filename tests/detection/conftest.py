"""What the tests of detection share."""

import pytest
from reading_engine import ReadingEngine


@pytest.fixture(scope='session')
def engine(encoder):
    return ReadingEngine(encoder)

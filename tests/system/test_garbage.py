"""Python's search for rubbish, held back."""

import gc

import pytest

from gpt2.system.garbage import collection_held_back


@pytest.mark.parametrize('searching', [True, False])
def test_it_is_held_back_for_a_while_and_then_as_it_was(searching):
    before = gc.isenabled()
    try:
        (gc.enable if searching else gc.disable)()
        with pytest.raises(KeyError), collection_held_back():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == searching
    finally:
        (gc.enable if before else gc.disable)()

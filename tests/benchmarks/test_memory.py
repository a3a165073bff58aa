"""How much memory loading takes, on a checkpoint of the released size."""

import memory
import pytest


@pytest.mark.slow
def test_loading_124m_holds_no_second_copy_of_the_weights():
    found = memory.measure('124M')
    assert found['weights_megabytes'] == 498
    assert found['peak_loading_megabytes'] <= found['bound_megabytes']

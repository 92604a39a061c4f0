from waves.series import Windows


def test_sizes():
    windows = Windows(20, 100, seed=0)
    assert len(windows) == 100
    assert windows[99][0].shape == (20,)

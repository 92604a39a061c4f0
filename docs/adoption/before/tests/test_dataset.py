from sugar.dataset import load


def test_sizes():
    assert [len(load(train)) for train in (True, False)] == [350, 92]

"""A sweep that counts, after each job, all objects and the filters of all loggers."""

import gc
import logging
import sys

from digits.engine.launch import launch

counts, filters = [], []


def work(job):
    from digits.engine.train import train

    train(job)
    gc.collect()
    counts.append(len(gc.get_objects()))
    loggers = [x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger)]
    filters.append(sum(len(handler.filters) for x in loggers for handler in x.handlers))


assert launch(work) == 0
print(*counts, *filters, file=sys.stderr)

"""The engine: everything between your files and a trained model. Renewed by `copier update`.

One concern, one file:

    launch.py      from the command line to a checked config, without torch
    config.py      every config key, its default and its meaning
    errors.py      exit codes
    runs.py        run folders: create, lock, find, describe
    setup.py       config -> data, model, loss, task, optimizer, scheduler
    loop.py        the training step and the loop around it
    validation.py  every sample of a split once
    data.py        which samples make up which batch, and loading them
    rng.py         randomness as a function of (seed, domain, numbers)
    optim.py       parameter groups and the optimizer
    schedule.py    learning rate as a function of the step
    device.py      device, precision, determinism
    checkpoint.py  writing and reading one plain dict, safely
    log.py         window means, console lines, metrics.jsonl
    api.py         what your files import
"""

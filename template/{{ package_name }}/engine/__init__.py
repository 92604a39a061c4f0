"""The engine: everything between your files and a trained model. Renewed by `copier update`.

One concern, one file. To know how a run comes about, read in this order, after the project's
train.py: train.py, api.py, setup.py, loop.py, rng.py, plan.py, data.py, windows.py, checkpoint.py,
resume.py. They take an evening; the others can wait until you need them.

What your files build on:

    api.py          Data, Task, Mean, record and what else is handed to them

From the command line to a run:

    launch.py       composes and checks the config, without torch; exit codes
    config.py       every config key, its default and its meaning
    help.py         what --help prints
    hydra_errors.py Hydra's errors as one sentence
    errors.py       exit codes, and what ends a run with one
    sweep.py        several jobs: checked before the first, a table at the end
    signals.py      stop requests
    runs.py         run folders: create, lock, find, describe
    paths.py        where the project lies, files that are whole or absent
    train.py        one run from its job to its result
    resume.py       going on with a run: which checkpoint, and is it still the same run

What a run is made of:

    setup.py        config -> data, model, loss, task, optimizer, scheduler
    build.py        a config section with a _target_ -> an object
    loop.py         the training step and the loop around it
    validation.py   every sample of a split once
    plan.py         the order of an epoch, cut into batches
    data.py         which samples make up which batch, and reading them
    rng.py          randomness as a function of (seed, domain, numbers)
    optim.py        parameter groups and the optimizer
    fused.py        AdamW's step with less around its kernel
    schedule.py     the learning rate as a function of the step
    device.py       device, precision, determinism
    distributed.py  several processes
    memory.py       how much memory there is
    init_from.py    weights to start from
    checkpoint.py   writing and reading one plain dict, safely
    saver.py        saving in a thread, from a copy
    statistics.py   statistics of logged values over steps
    log.py          the log, metrics.jsonl
    report.py       what is shown and kept at a log point
    console.py      lines in columns, colour, the bar
    table.py        rows of text as aligned lines
    eta.py          how much of the run's time is left
    loggers/        TensorBoard, Weights & Biases, MLflow
    watch.py        what loggers show besides numbers: pictures, graph, histograms
    grids.py        pictures side by side, with captions
    profiling.py    where the time of a few steps goes

`datasets/`, `models/` and `losses.py` are built-in choices; `tools/` is what the core never imports,
but for the picture that train.py draws at the very end.
"""

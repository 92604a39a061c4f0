"""The engine: everything between your files and a trained model. Renewed by `copier update`.

One concern, one file. To know how a run comes about, read these, in this order, after train.py; it
takes an evening:

    train.py        one run from its job to its result
    api.py          what your files build on: Data, Task, Mean, Share, record
    setup.py        config -> data, model, loss, task, optimizer, scheduler
    loop.py         the training step and the loop around it
    rng.py          randomness as a function of (seed, domain, numbers)
    plan.py         which samples make up which batch
    data.py         reading them
    windows.py      statistics of logged values over steps
    checkpoint.py   writing and reading one plain dict, safely
    resume.py       going on with a run: which checkpoint, and is it still the same run

The others when you need them. From the command line to a run:

    launch.py       composes and checks the config, without torch; exit codes
    config.py       every config key, its default and its meaning
    help.py         what --help prints
    hydra_errors.py Hydra's errors as one sentence
    errors.py       exit codes, and what ends a run with one
    sweep.py        several jobs: checked before the first, a table at the end
    signals.py      stop requests
    runs.py         run folders: create, lock, find, describe
    paths.py        where the project lies, files that are whole or absent

What a run is made of:

    build.py        a config section with a _target_ -> an object
    validation.py   every sample of a split once
    optim.py        parameter groups and the optimizer
    fused.py        torch's optimizers with less around their kernels
    schedule.py     the learning rate as a function of the step
    device.py       device, precision, determinism
    distributed.py  several processes
    memory.py       how much memory there is
    init_from.py    weights to start from
    saver.py        saving in a thread, from a copy

What is seen of it:

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

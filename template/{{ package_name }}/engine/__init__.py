"""The engine: all code between your files and a trained model. `copier update` renews it.

Read the trunk first, in this order. It takes an evening:

    loop.py            the training step, and the loop around it
    api.py             the interface for your files: Data, Task, Mean, record …
    rng.py             randomness as a function of keys
    schedule.py        the learning rate as a function of the step
    setup.py           config → data, model, loss, task, optimizer
    train.py           one run from its job to its result, resuming included
    launch.py          command line → checked config → exit code
    batches/plan.py    which samples make up which batch
    run/checkpoint.py  one plain dict, whole or absent

Beside it:

    progress.py     the best value, patience, time limit, stop requests
    validation.py   each sample of a split once, the test at the end, the hooks of a task
    failures.py     how a failed run ends
    predictions.py  predicted classes as rows and pictures
    sink.py         the interface of loggers, which api.py offers
    losses.py       a loss of weighted terms, and what torch's losses are means over
    folds.py        which samples a fold of cross-validation holds out
    means.py        `Mean`, which api.py offers, and what a value is a mean over
    errors.py       exit codes and their exceptions
    signals.py      how a run is stopped
    paths.py        the project's folders, files that are whole or absent
    text.py         messages, numbers, tables

The rooms:

    config/    keys with their meaning and rules, composing, stored configs, sweeps    (no torch)
    machine/   device, precision, processes, divided parameters, private parts of torch
    run/       the run folder: lock, manifest, source, checkpoints, saver, resuming; jobs of sweeps
    batches/   the plan of an epoch, the loader
    build/     _target_ → object, optimizer, first batch, init_from, virtual_ranks
    log/       statistics, report, console, log file, pictures
    datasets/ models/ loggers/    built-in choices
    tools/     the verbs, dry run, learning-rate test, curves

Imports go one way: errors, paths, text, rng, signals → config → schedule → api → machine → run,
batches → build → log → setup → validation, loop → train → tools. Built-in choices import only the
first of these, config and api. The core never imports tools/, except for the curves at the end of a run.
"""

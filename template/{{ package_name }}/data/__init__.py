"""Your data sets; a file in configs/data/ names one as `.data.FILE.CLASS`."""

"""Your models; a file in configs/model/ names one as `.models.FILE.CLASS`."""

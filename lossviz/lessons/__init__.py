"""What a lecturer does with the notebooks: execute, make the student version, sweep, show slides.

One source, the lecturer's; tags and marks say what each reader gets
(:mod:`lossviz.lessons.source`). From the command line: ``python -m lossviz.lessons --help``. Needs
papermill and nbconvert, which the package itself does not.
"""

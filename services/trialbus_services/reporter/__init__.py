"""The reporting service: one page for each finished study.

`figures` and `facts` make what is shown from a study, `page` makes it HTML, `report` writes
the files, `main` does so for every `study_finished` on the bus.
"""

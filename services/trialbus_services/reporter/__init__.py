"""The reporting service: an HTML page and exports for each finished study.

`snapshot` reads a study once; `summary`, `table` and `figures` make what is shown from it; `page`
makes that HTML, `exports` and `images` files; `report` and `comparison` write it all. `main` does
so for every `study_finished` on the bus. `options` says what a report consists of.
"""

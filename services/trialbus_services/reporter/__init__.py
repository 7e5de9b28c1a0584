"""The reporting service: an HTML page and exports for each finished study.

`storage_reader` loads a study and `snapshot` reads its trials once; `study_summary`, `table` and
`figures` compute the content; `page`, `exports` and `images` render it; `report` and `comparison`
write the files, which `staging` moves into place. `main` makes a report for every `study_finished`
on the bus, each in a child process (`report_process`).
"""

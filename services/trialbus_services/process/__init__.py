"""Process: how processes start, are supervised and end, and where the files of a study lie."""

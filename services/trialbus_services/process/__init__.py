"""Process: start, supervision and end of processes, and paths of the files of studies."""

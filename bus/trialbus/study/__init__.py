"""Study: the specification of a study as plain data, and the validation of that data."""

"""The Optuna service: hands out trials, records evaluations, prunes, and finishes studies.

`ledger` is what the log says, `study` is one Optuna study kept in step with it, `service` is the
loop between them and the bus.
"""

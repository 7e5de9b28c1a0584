"""The Optuna service: hands out trials, records evaluations, prunes, and finishes studies.

`ledger` folds the log into studies, trials and requests; `running_study` keeps one Optuna study in
step with the ledger: `prune_decider` decides, `trial_supply` supplies new trials, `study_recorder`
records; `loop` reads the log and publishes through `announcer`; `service` connects the loop to the
bus.
"""

"""Study: what a study is, as plain data: search space, objectives, sampler, pruner, bounds."""

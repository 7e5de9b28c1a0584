"""Starting: a first study file for a training script, made by looking at the script."""

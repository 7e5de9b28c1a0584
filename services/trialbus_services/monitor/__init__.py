"""The live page: one listener on the bus, shown to any number of browsers.

`board` folds events, `feed` reads them off the bus, `stream` sends browsers what changed, `acts`
turns their wishes into events, `access` says who may, `app` ties it together.
"""

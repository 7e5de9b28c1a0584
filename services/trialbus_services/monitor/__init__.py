"""Live page: follows the log over a single subscription and serves any number of browsers.

`feed` reads events off the bus, `board` folds them by study, `stream` sends browsers the changes,
`actions` turns requests of users into events, `access` controls log-in, `app` has the routes.
"""

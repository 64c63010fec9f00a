"""Runs in a browser: find, listen, ask, put right. A page and a JSON API over them; and a page to drop a sound on.

catalog    a run's rows in a DuckDB file of the cache, made of its part files: filters, words, pages by key
runs       the runs that are served: their rows as people see them, corrections, details out of the part files
finding    a query → a page of rows, in order of the archive, or by sound through the index of `search`
sounds     the stretch of a row as WAV, its picture, its file as it is; by row, decoded in the sandbox
answering  the model, loaded once, asked by one thread that takes what waits together; or replicas on a cluster
replicas   the same as Ray Serve has it (`--address`)
remembering  what was made lately
guard      who may ask: Host, token, origin of POSTs; headers of every answer
api        the JSON API, and what it takes and gives
app        the application: pages, sounds, static files
run        `run_serve`: checks, loading, uvicorn, its end

Nobody names a file from a browser: a row of a run is asked for, and what it lists is opened. Imports `search`, `pages`,
`export.places` and what is below them; FastAPI and uvicorn are the extra `serve`.
"""
